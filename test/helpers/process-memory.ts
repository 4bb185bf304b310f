// SPDX-License-Identifier: Apache-2.0
// What a process holds in its memory, looked for from outside.

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/** Whether the system lets this process look into that one, which it started. */
export function canReadMemory(pid: number): boolean {
  try {
    closeSync(openSync(`/proc/${pid}/mem`, 'r'));
    return true;
  } catch {
    return false;
  }
}

/** Names of those that lie somewhere in what the process can write to. */
export function foundInMemory(
  pid: number,
  wanted: Readonly<Record<string, Uint8Array>>,
): readonly string[] {
  const found = new Set<string>();
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const { start, length } of writableRanges(pid)) {
      const bytes = readRange(memory, start, length);
      for (const [name, each] of Object.entries(wanted)) {
        if (!found.has(name) && bytes.includes(Buffer.from(each))) found.add(name);
      }
    }
  } finally {
    closeSync(memory);
  }
  return [...found].toSorted();
}

function writableRanges(pid: number): readonly { start: number; length: number }[] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n');
  return lines.flatMap((line) => {
    const [, first, end] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
    if (first === undefined || end === undefined) return [];
    const start = Number.parseInt(first, 16);
    return [{ start, length: Number.parseInt(end, 16) - start }];
  });
}

/** As much of it as there still is. */
function readRange(memory: number, start: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let done = 0;
  try {
    while (done < length) {
      const count = readSync(memory, bytes, done, length - done, start + done);
      if (count === 0) break;
      done += count;
    }
  } catch {
    // Unmapped meanwhile.
  }
  return bytes.subarray(0, done);
}
