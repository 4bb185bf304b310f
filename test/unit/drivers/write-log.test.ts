// SPDX-License-Identifier: Apache-2.0
// Logs of blklogwrites that others wrote, or someone forged.
import { describe, expect, it } from 'vitest';

import type { Driver } from '../../../src/block/index.js';
import { blklogwrites } from '../../../src/drivers/filters/blklogwrites/index.js';
import { errorOf, graphOn, makeFile, MemoryHost } from '../../helpers/graph.js';

const SECTOR = 512;

/** A log with one entry after the superblock. */
function forged(entry: { readonly sectors: bigint; readonly flags: bigint }): Uint8Array {
  const bytes = new Uint8Array(4 * SECTOR);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, 0x6a_7366_7773_6872n, true);
  view.setBigUint64(8, 1n, true);
  view.setBigUint64(16, 1n, true);
  view.setUint32(24, SECTOR, true);
  view.setBigUint64(SECTOR + 8, entry.sectors, true);
  view.setBigUint64(SECTOR + 16, entry.flags, true);
  return bytes;
}

async function append(log: Uint8Array): Promise<Error | null> {
  const host = new MemoryHost();
  await makeFile(host, '/disk', 4096);
  await makeFile(host, '/log', log);
  const graph = graphOn(host, [blklogwrites as unknown as Driver<never>]);
  const open = graph.open({
    driver: 'blklogwrites',
    file: { driver: 'file', filename: '/disk' },
    log: { driver: 'file', filename: '/log' },
    'log-append': true,
  });
  const failed = await open.then(() => false, () => true);
  const error = failed ? await errorOf(() => open) : null;
  await graph.closeAll();
  return error;
}

describe('a log that is appended to', () => {
  it('may end with the data of its last entry', async () => {
    expect(await append(forged({ sectors: 2n, flags: 0n }))).toBe(null);
  });

  it('holds the data of its last entry', async () => {
    for (const sectors of [3n, 2n ** 63n, 2n ** 64n - 1n]) {
      expect(await append(forged({ sectors, flags: 0n }))).toMatchObject({
        kind: 'corrupt-image',
        message: 'log ends within entry 0 of 1',
      });
    }
  });

  it('may tell of a discard of any size, which has no data', async () => {
    expect(await append(forged({ sectors: 2n ** 40n, flags: 4n }))).toBe(null);
  });
});
