// SPDX-License-Identifier: Apache-2.0
// Clusters of strangers' images given up: what a bad entry names is neither emptied nor freed, and
// tables of the largest size take no time.

import { describe, expect, it } from 'vitest';

import { discardRequest, RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import type { HostFile } from '../../src/host/index.js';
import { pattern } from '../helpers/graph.js';
import { createOn } from '../helpers/qcow2-create.js';
import { openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const CLUSTER = 4096;
const SIZE = 4 * 512 * CLUSTER;
const LAST = SIZE - CLUSTER;
const COPIED_HI = 0x8000_0000;

const L1_OFFSET_AT = 40;
const TABLE_OFFSET_AT = 48;

async function bytesAt(file: HostFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await file.read(bytes, offset);
  return bytes;
}

async function offsetAt(file: HostFile, at: number): Promise<number> {
  const bytes = await bytesAt(file, at, 8);
  return (bytes.readUInt32BE(0) & 0x00ff_ffff) * 2 ** 32 + bytes.readUInt32BE(4);
}

interface Bad {
  readonly file: HostFile;
  /** Host offset of the cluster at guest offset 0. */
  readonly kept: number;
}

/** An image whose last cluster's entry names `place`; gives what is there before and after. */
async function given(
  place: (bad: Bad) => Promise<number>,
  up: (image: OpenedImage) => unknown,
): Promise<{ readonly before: Buffer; readonly after: Buffer; readonly shown: Uint8Array }> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER });
  const first = await openOn(host, '/image');
  await first.node.write(writeRequest(0, pattern(2 * CLUSTER, 1)));
  await first.node.write(writeRequest(LAST, pattern(CLUSTER, 3)));
  await first.node.close();
  const file = await host.openFile('/image', { readOnly: false });
  const l1 = await offsetAt(file, L1_OFFSET_AT);
  const kept = await offsetAt(file, await offsetAt(file, l1));
  const offset = await place({ file, kept });
  const entry = Buffer.alloc(8);
  entry.writeUInt32BE((COPIED_HI | Math.floor(offset / 2 ** 32)) >>> 0, 0);
  entry.writeUInt32BE(offset % 2 ** 32, 4);
  await file.write(entry, (await offsetAt(file, l1 + 3 * 8)) + 511 * 8);
  const before = await bytesAt(file, offset, CLUSTER);
  const image = await openOn(host, '/image');
  await up(image);
  const shown = await image.read(0, 2 * CLUSTER);
  await image.node.close();
  const after = await bytesAt(file, offset, CLUSTER);
  await file.close();
  return { before, after, shown };
}

const EXACT = { exact: true, preallocation: 'off' } as const;

/** Ways to give up the last cluster. */
const WAYS: readonly ((image: OpenedImage) => unknown)[] = [
  ({ node }) => node.truncate(SIZE / 2, EXACT),
  ({ node }) => node.truncate(LAST, EXACT),
  ({ node }) => node.discard(discardRequest(LAST, CLUSTER)),
  ({ node }) => node.writeZeroes(zeroRequest(LAST, CLUSTER, RequestFlag.mayUnmap)),
];

describe('a bad entry of a cluster that is given up', () => {
  it.each([
    { name: 'the refcount table', place: ({ file }: Bad) => offsetAt(file, TABLE_OFFSET_AT) },
    {
      name: 'the middle of another cluster',
      place: ({ kept }: Bad) => Promise.resolve(kept + 512),
    },
    {
      name: 'a table that stays',
      place: async ({ file }: Bad) => offsetAt(file, await offsetAt(file, L1_OFFSET_AT)),
    },
  ])('leaves $name alone', async ({ place }) => {
    for (const way of WAYS) {
      const { before, after, shown } = await given(place, way);
      expect(shown).toEqual(pattern(2 * CLUSTER, 1));
      expect(after.equals(before)).toBe(true);
    }
  });
});

describe('a smaller image', () => {
  it('is not slowed down by a million refcounts that a table names over and over', async () => {
    const host = new MemoryHost();
    const options = { size: 2 ** 30, 'cluster-size': 65_536, 'refcount-bits': 1 } as const;
    await createOn(host, '/image', options);
    const file = await host.openFile('/image', { readOnly: false });
    const table = await offsetAt(file, TABLE_OFFSET_AT);
    const block = Math.ceil(file.size() / 65_536) * 65_536;
    await file.truncate(block + 65_536);
    const entries = Buffer.alloc(65_536 - 8);
    for (let at = 0; at < entries.length; at += 8) entries.writeUInt32BE(block, at + 4);
    await file.write(entries, table + 8);
    await file.close();
    const image = await openOn(host, '/image');
    await image.node.truncate(2 ** 29, EXACT);
    expect(image.node.length).toBe(2 ** 29);
    await image.node.close();
  }, 20_000);
});
