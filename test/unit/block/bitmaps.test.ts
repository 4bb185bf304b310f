// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import {
  addBitmap,
  bitmapsOf,
  clearBitmap,
  removeBitmap,
  type Backend,
  type Node,
} from '../../../src/block/index.js';
import { errorOf, graphOn, makeFile, MemoryHost, READ_WRITE } from '../../helpers/graph.js';

async function disk(): Promise<{ node: Node; user: Backend }> {
  const host = new MemoryHost();
  await makeFile(host, '/disk', 1_048_576);
  const graph = graphOn(host);
  const node = await graph.openImage('/disk', 'raw', false, { unmap: true });
  return { node, user: await graph.attach(node, 'guest', READ_WRITE) };
}

describe('bitmaps of a node', () => {
  it('record writes, zeroes and discards while enabled', async () => {
    const { node, user } = await disk();
    const bitmap = addBitmap(node, { name: 'b', granularity: 512 });
    await user.write(1000, new Uint8Array(100));
    await user.writeZeroes(4096, 512);
    await user.discard(8192, 512);
    await user.read(0, new Uint8Array(512));
    expect(bitmap.count).toBe(2048);
    expect(bitmap.nextDirty(0)).toEqual({ offset: 512, length: 1024 });
    bitmap.enabled = false;
    await user.write(65_536, new Uint8Array(512));
    expect(bitmap.isDirty(65_536)).toBe(false);
    clearBitmap(node, 'b');
    expect(bitmap.count).toBe(0);
  });

  it('follow the size of the node', async () => {
    const { node, user } = await disk();
    const bitmap = addBitmap(node, { name: 'b' });
    await node.truncate(2_097_152);
    expect(bitmap.size).toBe(2_097_152);
    await user.write(2_000_000, new Uint8Array(10));
    expect(bitmap.count).toBe(65_536);
  });

  it('refuse names, granularities and uses as the reference does', async () => {
    const { node } = await disk();
    const bitmap = addBitmap(node, { name: 'b' });
    expect(bitmap.granularity).toBe(65_536);
    const refusals: [() => unknown, string][] = [
      [() => addBitmap(node, { name: 'b' }), 'Bitmap already exists: b'],
      [() => addBitmap(node, { name: '' }), 'Bitmap name cannot be empty'],
      [
        () => addBitmap(node, { name: 'g', granularity: 500 }),
        'Granularity must be power of 2 and at least 512',
      ],
      [
        () => addBitmap(node, { name: 'g', granularity: 256 }),
        'Granularity must be power of 2 and at least 512',
      ],
      [
        () => addBitmap(node, { name: 'x'.repeat(1024) }),
        `Bitmap name too long: ${'x'.repeat(1024)}`,
      ],
      [() => removeBitmap(node, 'zz'), "Dirty bitmap 'zz' not found"],
      [() => clearBitmap(node, 'zz'), "Dirty bitmap 'zz' not found"],
    ];
    for (const [action, message] of refusals) expect((await errorOf(action)).message).toBe(message);
    const release = bitmap.hold('backup');
    expect((await errorOf(() => removeBitmap(node, 'b'))).message).toBe(
      "Bitmap 'b' is currently in use by another operation and cannot be used",
    );
    release();
    removeBitmap(node, 'b');
    expect(bitmapsOf(node)).toEqual([]);
  });
});
