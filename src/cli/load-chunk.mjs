// SPDX-License-Identifier: Apache-2.0
// How the bundled program loads a command's chunk: as a script, with the code that V8 made of it
// when it was bundled. The module loader would look it up, read and compile it piece by piece,
// which takes longer than most commands do.
//
// The compiled code lies beside the chunk and holds for one Node alone, which is in its name; V8
// refuses what is not of its own version, flags and source, and then compiles as ever.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Script } from 'node:vm';

/** Where the compiled code of a chunk is for the Node that runs this. */
export function compiledPath(path) {
  return `${path.slice(0, -'.js'.length)}.${process.version}-${process.arch}.compiled`;
}

function compiledCode(path) {
  try {
    return readFileSync(compiledPath(path));
  } catch {
    return undefined;
  }
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
