// SPDX-License-Identifier: Apache-2.0
// How the bundled program loads a command's chunk: as a script, with the code that V8 made of it
// when it was bundled. The module loader would look it up, read and compile it piece by piece,
// which takes longer than most commands do.
//
// The compiled code lies beside the chunk and holds for one Node alone, which is in its name; V8
// refuses what is not of its own version, flags and source, and then compiles as ever. A chunk may
// have another that holds what encrypted images need too: to load that takes longer than what other
// commands would gain by it.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Script } from 'node:vm';

/** Command lines that seem to be about encrypted images; a wrong guess costs two milliseconds. */
const ENCRYPTED = /luks|secret/;

/** Where the compiled code of a chunk is for the Node that runs this. */
export function compiledPath(path, isEncrypted = false) {
  const kind = isEncrypted ? '.encrypted' : '';
  return `${path.slice(0, -'.js'.length)}.${process.version}-${process.arch}${kind}.compiled`;
}

function compiledCode(path) {
  const isEncrypted = process.argv.slice(2).some((word) => ENCRYPTED.test(word));
  for (const kind of isEncrypted ? [true, false] : [false]) {
    try {
      return readFileSync(compiledPath(path, kind));
    } catch {
      continue;
    }
  }
  return undefined;
}

/** `path`: absolute. Gives what the chunk exports, and its script. */
export function startChunk(path) {
  // Bundles are ASCII.
  const source = readFileSync(path, 'latin1');
  const script = new Script(source, { filename: path, cachedData: compiledCode(path) });
  const module = { exports: {} };
  const importModule = (name) => import(name);
  script.runInThisContext()(module.exports, createRequire(path), module, path, importModule);
  return { exports: module.exports, script };
}

export function loadChunk(path) {
  return startChunk(path).exports;
}
