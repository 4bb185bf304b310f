// SPDX-License-Identifier: Apache-2.0
// Empty tables that are read: refused only where a file cannot hold all of them.
import { describe, expect, it } from 'vitest';
import type { Node } from '../../../src/block/index.js';
import { HoleReads } from '../../../src/drivers/formats/qcow2/hole-reads.js';

const MIB = 2 ** 20;

/** How many tables of 512 bytes are read before it is enough; 10 000 when it never is. */
function readsOf(allocated: number | null, distance: number, most?: number): number {
  const hostFile = { allocatedBytes: () => allocated };
  const file = { primary: null, driverNode: allocated === null ? {} : { hostFile } };
  const reads = new HoleReads({
    what: 'tables',
    file: file as unknown as Node,
    stored: MIB,
    ...(most !== undefined && { most }),
  });
  for (let count = 0; count < 10_000; count += 1) {
    try {
      reads.add(count * distance, 512);
    } catch {
      return count;
    }
  }
  return 10_000;
}

describe('empty tables that were read', () => {
  it('are too many when they are far apart and the file has no room for them', () => {
    expect(readsOf(2 * MIB, MIB)).toBeLessThan(5000);
  });

  it('may be any number in a file that may hold them', () => {
    expect(readsOf(60 * MIB, MIB)).toBe(10_000);
    expect(readsOf(null, MIB)).toBe(10_000);
  });

  it('may be many more when they lie near each other', () => {
    expect(readsOf(2 * MIB, 4096)).toBe(10_000);
  });

  it('are bounded in all by whoever says so', () => {
    expect(readsOf(null, 4096, 16 * MIB)).toBeLessThan(1000);
  });
});
