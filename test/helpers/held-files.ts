// SPDX-License-Identifier: Apache-2.0
// What a process holds of the files in a directory: how each is open, and the bytes it has locked.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { sep } from 'node:path';

/** A line such as `disk.img rw 100 101 203` for each descriptor, in order of the names. */
export function heldFiles(pid: number, directory: string): string[] {
  const held: string[] = [];
  for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const path = readlinkSync(`/proc/${pid}/fd/${descriptor}`);
      if (!path.startsWith(directory + sep) || path.endsWith('.sock')) continue;
      const facts = readFileSync(`/proc/${pid}/fdinfo/${descriptor}`, 'latin1');
      const name = path.slice(directory.length + 1);
      held.push([name, modeOf(facts), ...lockedBytes(facts)].join(' '));
    } catch {
      // Closed meanwhile.
    }
  }
  return held.sort();
}

function modeOf(facts: string): string {
  const flags = Number.parseInt(/^flags:\s+(\d+)/m.exec(facts)?.[1] ?? '0', 8);
  return (flags & 3) === 0 ? 'ro' : 'rw';
}

function lockedBytes(facts: string): number[] {
  const bytes: number[] = [];
  for (const [, first, last] of facts.matchAll(/^lock:.* (\d+) (\d+)$/gm)) {
    for (let byte = Number(first); byte <= Number(last); byte += 1) bytes.push(byte);
  }
  return bytes.sort((a, b) => a - b);
}
