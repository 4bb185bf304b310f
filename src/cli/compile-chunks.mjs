// SPDX-License-Identifier: Apache-2.0
// Stores what V8 makes of the commands' chunks beside them, for load-chunk.mjs: each command is
// run on small images, so that what every run needs is compiled in what is stored, and what no run
// needs is not. A process of its own, whose V8 has the flags of the program's: when the program is
// bundled (bundle.mjs), and where it is installed (native/install.cjs). Prints what it stored.
//
// V8 trusts what it finds, so it is on the disk before it has its name.

import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync } from 'node:fs';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compiledPath, startChunk } from './load-chunk.mjs';

const PROGRAM = fileURLToPath(new URL('../../dist/cli/blockwright.js', import.meta.url));
const COMPILED = /chunks\/(?:img|io|storage-daemon)-\w+\.js/g;

const LINES = {
  runImg: [
    'create -q -f qcow2 a.qcow2 1M',
    'create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2',
    'create -q -f raw a.raw 1M',
    'info b.qcow2',
    'info --output=json b.qcow2',
    'check a.qcow2',
    'snapshot -l a.qcow2',
    'map --output=json b.qcow2',
    'measure -O qcow2 a.qcow2',
    'convert -f raw -O qcow2 data.raw c.qcow2',
    'convert -O raw c.qcow2 c.raw',
    'compare -q -f raw data.raw c.qcow2',
    'resize -q -f raw a.raw 2M',
  ],
  runIo: ['-c|write -q 0 64k|-c|read -q 0 64k|a.qcow2'],
};

const SECRET = ['--object', 'secret,id=s,data=password'];
const IMAGE = 'driver=luks,key-secret=s,file.filename=a.luks';

/** What runIo reads was made by runImg: the chunks come in this order. */
const ENCRYPTED_LINES = {
  runImg: [
    ['create', '-q', ...SECRET, '-f', 'luks', '-o', 'key-secret=s,iter-time=1', 'a.luks', '1M'],
    ['info', 'a.luks'],
    ['luks', 'test-passphrase', ...SECRET, '--secret', 's', 'a.luks'],
    ['map', '--output=json', ...SECRET, '--image-opts', IMAGE],
  ],
  runIo: [['-c', 'write -q 0 64k', '-c', 'read -q 0 64k', ...SECRET, '--image-opts', IMAGE]],
};

let complaints = '';
const program = {
  name: 'compile-chunks',
  out: () => undefined,
  err: (text) => void (complaints += text),
  terminal: false,
};

function wordsOf(line) {
  return Array.isArray(line) ? line : line.split(line.includes('|') ? '|' : ' ');
}

/** False when there are none for this chunk. */
async function runLines(exports, linesOf) {
  const ours = Object.entries(linesOf).filter(([name]) => name in exports);
  for (const [name, lines] of ours) {
    for (const line of lines) {
      const status = await exports[name](wordsOf(line), program);
      if (status !== 0) throw new Error(`${String(line)}: ${complaints}`);
    }
  }
  return ours.length > 0;
}

function store(path, contents) {
  const temporary = `${path}.${process.pid}.new`;
  const file = openSync(temporary, 'w', 0o644);
  writeFileSync(file, contents);
  fsyncSync(file);
  closeSync(file);
  renameSync(temporary, path);
  process.stdout.write(`${path}\n`);
}

const folder = mkdtempSync(join(tmpdir(), 'blockwright-compile-'));
process.chdir(folder);
try {
  writeFileSync('data.raw', Buffer.alloc(1_048_576, 'data'));
  for (const [chunk] of readFileSync(PROGRAM, 'utf8').matchAll(COMPILED)) {
    const path = join(PROGRAM, '..', chunk);
    const { exports, script } = startChunk(path);
    await runLines(exports, LINES);
    store(compiledPath(path), script.createCachedData());
    if (await runLines(exports, ENCRYPTED_LINES)) {
      store(compiledPath(path, true), script.createCachedData());
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
