// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import {
  addBitmap,
  bitmapSha256,
  bitmapsOf,
  clearBitmap,
  DirtyBitmap,
  freezeBitmap,
  mergeBitmaps,
  removeBitmap,
  setRecording,
  shownBitmapsOf,
  type Backend,
  type Graph,
  type Node,
  type Succession,
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
    await removeBitmap(node, 'b');
    expect(bitmapsOf(node)).toEqual([]);
  });
});

describe('a frozen bitmap', () => {
  async function frozen(): Promise<{
    node: Node;
    user: Backend;
    bitmap: DirtyBitmap;
    succession: Succession;
  }> {
    const { node, user } = await disk();
    const bitmap = addBitmap(node, { name: 'b', granularity: 512 });
    await user.write(0, new Uint8Array(512));
    const succession = freezeBitmap(node, bitmap, 'job');
    await user.write(1024, new Uint8Array(512));
    return { node, user, bitmap, succession };
  }

  it('keeps its bits while a nameless successor records', async () => {
    const { node, bitmap, succession } = await frozen();
    expect(succession.frozen).toBe(bitmap);
    expect({ count: bitmap.count, busy: bitmap.busy }).toEqual({ count: 512, busy: true });
    expect({ enabled: bitmap.enabled, recording: bitmap.recording }).toEqual({
      enabled: false,
      recording: true,
    });
    expect(bitmapsOf(node)).toEqual([bitmap]);
    expect(shownBitmapsOf(node)).toHaveLength(2);
    for (const refused of [
      () => clearBitmap(node, 'b'),
      () => removeBitmap(node, 'b'),
      () => setRecording(node, 'b', true),
      () => mergeBitmaps(bitmap, [bitmap]),
      () => freezeBitmap(node, bitmap, 'other'),
    ]) {
      expect(refused).toThrow(/in use by another operation/);
    }
  });

  it('gives way to what was recorded meanwhile', async () => {
    const { node, user, bitmap, succession } = await frozen();
    const after = succession.abdicate();
    expect(bitmapsOf(node)).toEqual([after]);
    expect(after).toMatchObject({ name: 'b', busy: false, enabled: true });
    expect(after.nextDirty(0)).toEqual({ offset: 1024, length: 512 });
    await user.write(4096, new Uint8Array(1));
    expect(after.count).toBe(1024);
    expect(bitmap.count).toBe(512);
    expect(() => succession.reclaim()).toThrow(/once/);
  });

  it('goes on with what was recorded meanwhile', async () => {
    const { node, user, bitmap, succession } = await frozen();
    expect(succession.reclaim()).toBe(bitmap);
    expect(shownBitmapsOf(node)).toEqual([bitmap]);
    expect(bitmap).toMatchObject({ name: 'b', busy: false, enabled: true, count: 1024 });
    await user.write(4096, new Uint8Array(1));
    expect(bitmap.count).toBe(1536);
  });

  it('that was disabled has a successor that is', async () => {
    const { node, user } = await disk();
    const bitmap = addBitmap(node, { name: 'b', disabled: true });
    const succession = freezeBitmap(node, bitmap, 'job');
    await user.write(0, new Uint8Array(512));
    expect(bitmap.recording).toBe(false);
    expect(succession.abdicate()).toMatchObject({ enabled: false, count: 0 });
  });
});

describe('bitmaps that cannot be used', () => {
  it('are refused by what they are', async () => {
    const { node } = await disk();
    const bitmap = addBitmap(node, { name: 'b' });
    const other = addBitmap(node, { name: 'c' });
    bitmap.readOnly = true;
    expect(() => clearBitmap(node, 'b')).toThrow("Bitmap 'b' is readonly and cannot be modified");
    expect(() => removeBitmap(node, 'b')).toThrow('is readonly');
    expect(() => mergeBitmaps(bitmap, [other])).toThrow('is readonly');
    setRecording(node, 'b', false);
    mergeBitmaps(other, [bitmap]);
    bitmap.readOnly = false;
    bitmap.inconsistent = true;
    expect(() => clearBitmap(node, 'b')).toThrow("Bitmap 'b' is inconsistent and cannot be used");
    expect(() => mergeBitmaps(other, [bitmap])).toThrow('is inconsistent');
    expect(() => setRecording(node, 'b', true)).toThrow('is inconsistent');
    await removeBitmap(node, 'b');
    expect(bitmapsOf(node)).toEqual([other]);
  });

  it('a merge that is refused changes nothing', async () => {
    const { node, user } = await disk();
    const [target, good] = ['a', 'b'].map((name) => addBitmap(node, { name }));
    await user.write(0, new Uint8Array(512));
    target?.clearAll();
    const small = new DirtyBitmap({ name: 's', size: 512, granularity: 512 });
    const both = [good, small] as DirtyBitmap[];
    expect(() => mergeBitmaps(target as DirtyBitmap, both)).toThrow('different sizes');
    expect(target?.count).toBe(0);
  });

  it('too many bits for a node are refused', async () => {
    const { graph } = nullGraph();
    const node = await graph.open({ driver: 'null-co', size: 2 ** 52 });
    expect(() => addBitmap(node, { name: 'b', granularity: 512 })).toThrow(/more than \d+ bits/);
    const bitmap = addBitmap(node, { name: 'b', granularity: 2 ** 31 });
    const user = await graph.attach(node, 'guest', READ_WRITE);
    await user.writeZeroes(0, 2 ** 20);
    expect(bitmap.count).toBe(2 ** 31);
    expect(await bitmapSha256(bitmap)).toHaveLength(64);
  });
});

function nullGraph(): { graph: Graph } {
  return { graph: graphOn(new MemoryHost()) };
}
