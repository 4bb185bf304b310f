// SPDX-License-Identifier: Apache-2.0
// Builds the addon when the package is installed, by one call of the C++ compiler, and then has the
// bundled program compiled ahead for this Node (src/cli/compile-chunks.mjs).
//
// It downloads nothing and never fails the installation: without a compiler, without Node's
// headers, or when compiling fails, one line says that Blockwright will do without. The result is
// moved into place whole, so that a process never loads half a file.
'use strict';

const { execFileSync } = require('node:child_process');
const { existsSync, mkdirSync, readdirSync, renameSync, rmSync } = require('node:fs');
const { homedir } = require('node:os');
const path = require('node:path');

const BUILD = path.join(__dirname, 'build');
const ADDON = path.join(BUILD, 'blockwright.node');
const SOURCES = [
  'addon.cc',
  'aes-wide.cc',
  'aes.cc',
  'copy.cc',
  'crypt.cc',
  'derive.cc',
  'file-io.cc',
  'locks.cc',
  'pbkdf2.cc',
  'ripemd160.cc',
  'scan.cc',
  'sha1.cc',
  'sha256.cc',
  'sha512.cc',
];
const FLAGS = ['-std=c++17', '-O3', '-fPIC', '-shared', '-fvisibility=hidden', '-fno-exceptions'];
const COMPILE_LIMIT_MS = 120_000;

function say(line) {
  process.stdout.write(`blockwright: ${line}\n`);
}

/** Folders that may hold node_api.h for the running Node, most fitting first. */
function headerFolders() {
  const version = process.versions.node;
  const major = version.split('.')[0];
  const prefix = path.dirname(path.dirname(process.execPath));
  const given = process.env.npm_config_nodedir;
  const caches = [
    process.env.npm_config_devdir,
    path.join(homedir(), '.cache', 'node-gyp'),
    path.join(homedir(), '.node-gyp'),
  ];
  const folders = [given, prefix].filter(Boolean).map((base) => path.join(base, 'include', 'node'));
  for (const cache of caches.filter((name) => name && existsSync(name))) {
    const builds = readdirSync(cache).filter((name) => name.startsWith(`${major}.`));
    builds.sort((a, b) => Number(b === version) - Number(a === version));
    for (const build of builds) folders.push(path.join(cache, build, 'include', 'node'));
  }
  folders.push('/usr/include/node', '/usr/include/nodejs/src', '/usr/local/include/node');
  return folders;
}

function findCompiler() {
  for (const name of [process.env.CXX, 'c++', 'g++', 'clang++']) {
    if (!name) continue;
    try {
      execFileSync(name, ['--version'], { stdio: 'ignore', timeout: 10_000 });
      return name;
    } catch {
      // Not there or not working: the next one may be.
    }
  }
  return null;
}

function firstLine(error) {
  const text = `${error.stderr ?? ''}`.split('\n').find((line) => /error/i.test(line));
  return (text ?? error.message).trim().slice(0, 200);
}

function main() {
  const without = 'the native addon is not built';
  if (process.env.BLOCKWRIGHT_NATIVE === '0') return say(`${without} (BLOCKWRIGHT_NATIVE=0)`);
  if (process.platform !== 'linux') return say(`${without} (it is for Linux)`);
  const headers = headerFolders().find((folder) => existsSync(path.join(folder, 'node_api.h')));
  if (headers === undefined) return say(`${without} (no Node.js headers); going on without it`);
  const compiler = findCompiler();
  if (compiler === null) return say(`${without} (no C++ compiler); going on without it`);
  const unfinished = path.join(BUILD, `blockwright-${process.pid}.node`);
  try {
    mkdirSync(BUILD, { recursive: true });
    const sources = SOURCES.map((name) => path.join(__dirname, name));
    const call = [...FLAGS, `-I${headers}`, ...sources, '-o', unfinished];
    execFileSync(compiler, call, { stdio: 'pipe', timeout: COMPILE_LIMIT_MS });
    // Loading it in a process of its own proves it without risking the installation.
    execFileSync(process.execPath, ['-e', `require(${JSON.stringify(unfinished)})`], {
      stdio: 'pipe',
      timeout: 30_000,
    });
    renameSync(unfinished, ADDON);
    return say('native addon built');
  } catch (error) {
    rmSync(unfinished, { force: true });
    return say(`${without} (${firstLine(error)}); going on without it`);
  }
}

/** With what V8 makes of it the program starts sooner; it goes without as well. */
function compileProgram() {
  const root = path.dirname(__dirname);
  const script = path.join(root, 'src', 'cli', 'compile-chunks.mjs');
  if (!existsSync(path.join(root, 'dist', 'cli', 'blockwright.js'))) return;
  try {
    execFileSync(process.execPath, [script], { stdio: 'ignore', timeout: COMPILE_LIMIT_MS });
  } catch {
    say('the program is not compiled ahead; it starts a little later');
  }
}

try {
  main();
} catch (error) {
  say(`the native addon is not built (${error.message})`);
}
compileProgram();
