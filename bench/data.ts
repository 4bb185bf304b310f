// SPDX-License-Identifier: Apache-2.0
// Source data of the benches: the same bytes for every tool and every round, from one seed.
import { closeSync, fdatasyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { SeededRandom } from 'blockwright/testing';

export type Content = 'dense' | 'sparse' | 'text';

const MIB = 1024 * 1024;

/**
 * Writes a raw file of `size` bytes. `dense`: no zeroes, does not compress. `sparse`: every other
 * MiB of eight is data, the rest a hole. `text`: dense, compresses to about a third.
 */
export function writeContent(path: string, size: number, content: Content): void {
  const file = openSync(path, 'w');
  try {
    ftruncateSync(file, size);
    const block = content === 'text' ? textBlock() : randomBlock();
    for (let offset = 0, index = 0; offset < size; offset += MIB, index += 1) {
      if (content === 'sparse' && index % 8 !== 0) continue;
      stamp(block, index);
      writeSync(file, block, 0, Math.min(MIB, size - offset), offset);
    }
    fdatasyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Reads the file once, so that every run finds it in the page cache. */
export function warm(path: string): void {
  const file = openSync(path, 'r');
  const buffer = new Uint8Array(MIB);
  try {
    while (readSync(file, buffer) > 0);
  } finally {
    closeSync(file);
  }
}

function randomBlock(): Buffer {
  const block = Buffer.alloc(MIB);
  new SeededRandom(1).fill(block);
  return block;
}

function textBlock(): Buffer {
  const random = new SeededRandom(2);
  const words = Array.from({ length: 512 }, () =>
    Array.from({ length: 3 + random.below(8) }, () =>
      String.fromCharCode(97 + random.below(26)),
    ).join(''),
  );
  const block = Buffer.alloc(MIB);
  let length = 0;
  while (length < MIB) length += block.write(`${words[random.below(512)] ?? ''} `, length);
  return block;
}

/** Makes each page differ from the same page of other blocks. */
function stamp(block: Buffer, index: number): void {
  for (let page = 0; page < MIB; page += 4096) block.writeUInt32LE((index + 1) * 256, page);
}
