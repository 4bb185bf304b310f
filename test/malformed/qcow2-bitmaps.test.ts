// SPDX-License-Identifier: Apache-2.0
// Broken persistent bitmaps: every rule of the extension, of a directory entry and of a table entry
// is broken once. The image is refused in one line that names field and value, nothing is written,
// and where only some bitmaps cannot be trusted the others are still there.

import { describe, expect, it } from 'vitest';

import { BlockError, escapeControls, rulesOf } from '../../src/base/index.js';
import { addBitmap, bitmapsOf, removeBitmap, writeRequest } from '../../src/block/index.js';
import type { Node } from '../../src/block/index.js';
import { BITMAP_ENTRY, BITMAPS_EXTENSION } from '../../src/drivers/formats/qcow2/layout.js';
import { MemoryHost } from '../../src/host/index.js';
import { bitmapPlaces } from '../helpers/bitmap-places.js';
import type { BitmapPlaces } from '../helpers/bitmap-places.js';
import { makeGraph } from '../helpers/job-stage.js';
import { READ_WRITE } from '../helpers/graph.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';

const SIZE = 32 * 2 ** 20;
const CLUSTER = 4096;
const image = { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: '/image' } };
const V3 = { version: 3, length: 24 };

async function opened<T>(
  host: MemoryHost,
  readOnly: boolean,
  use: (node: Node) => Promise<T> | T,
): Promise<T> {
  const graph = makeGraph(host);
  try {
    const node = await graph.open({ ...image, 'read-only': readOnly });
    const user = readOnly ? null : await graph.attach(node, 'guest', READ_WRITE);
    const result = await use(node);
    await user?.detach();
    return result;
  } finally {
    await graph.closeAll();
  }
}

/** An image with the bitmaps `first` and `second`, which have some bits each. */
async function makeImage(
  options: object = { size: SIZE, 'cluster-size': CLUSTER },
  granularity = 512,
  names: readonly string[] = ['second', 'first'],
): Promise<Uint8Array> {
  const host = new MemoryHost();
  await createOn(host, '/image', options as never);
  await opened(host, false, async (node) => {
    for (const name of names) {
      addBitmap(node, { name, granularity, persistent: true });
    }
    for (const offset of [0, 3_000_000]) {
      await node.write(writeRequest(offset, new Uint8Array(5000).fill(1)));
    }
  });
  return bytesOf(host);
}

async function bytesOf(host: MemoryHost): Promise<Uint8Array> {
  const file = await host.openFile('/image', { readOnly: true });
  const bytes = new Uint8Array(file.size());
  await file.read(bytes, 0);
  await file.close();
  return bytes;
}

function hostWith(bytes: Uint8Array): MemoryHost {
  const host = new MemoryHost();
  host.putFile('/image', bytes);
  return host;
}

interface Change {
  readonly at: (places: BitmapPlaces) => number;
  readonly size: number;
  readonly value: number;
  readonly says: RegExp;
}

const inExtension = (places: BitmapPlaces): number => places.extension;
const inEntry = (places: BitmapPlaces): number => places.directory;
const inTable = (places: BitmapPlaces): number => places.table;

function changeOf(
  start: Change['at'],
  [offset, size]: readonly [number, number],
  value: number,
  says: RegExp,
): Change {
  return { at: (places) => start(places) + offset, size, value, says };
}

const rules = [
  ...rulesOf(BITMAPS_EXTENSION, V3).map((rule) => ({ rule, start: inExtension })),
  ...rulesOf(BITMAP_ENTRY, V3).map((rule) => ({ rule, start: inEntry })),
];

const CASES: Readonly<Record<string, Change>> = {
  ...Object.fromEntries(
    rules.map(({ rule, start }) => [
      `${start === inEntry ? 'entry' : 'extension'} ${rule.field}, ${rule.rule}: ${rule.badValue}`,
      changeOf(start, [rule.offset, rule.size], rule.badValue, /./),
    ]),
  ),
  'a directory between clusters': changeOf(inExtension, [16, 8], 4104, /directory_offset 4104/),
  'a directory behind the file': changeOf(inExtension, [16, 8], 2 ** 40, /read bitmap directory/),
  'a directory that is too long': changeOf(inExtension, [8, 8], 72, /Bitmap|bitmap/),
  'a directory that is cut': changeOf(inExtension, [8, 8], 40, /Broken bitmap directory|Less/),
  'more bitmaps than said': changeOf(inExtension, [0, 4], 1, /More bitmaps found/),
  'less bitmaps than said': changeOf(inExtension, [0, 4], 3, /Less bitmaps found/),
  'a table between clusters': changeOf(inEntry, [0, 8], 4608, /table_offset 4608/),
  'a table behind the file': changeOf(inEntry, [0, 8], 2 ** 40, /bitmap_table table/),
  'a table that is too short for the image': changeOf(inEntry, [8, 4], 1, /table_size 1/),
  'a table that is too long for the image': changeOf(inEntry, [8, 4], 3, /table_size 3/),
  'more bits than may be': changeOf(inEntry, [8, 4], 2 ** 27, /table_size 134217728/),
  'a name of control bytes': changeOf(inEntry, [24, 1], 27, /^$/),
  'an entry with reserved low bits': changeOf(inTable, [0, 8], 4096 + 2, /0x000001002/),
  'an entry with reserved high bits': changeOf(inTable, [0, 4], 0x0100_0000, /0x1000000/),
  'an entry between clusters': changeOf(inTable, [0, 8], 4096 + 512, /table entry 0/),
  'an entry that is dirty and somewhere': changeOf(inTable, [0, 8], 4097, /table entry 0/),
  'an entry behind the file': changeOf(inTable, [0, 8], 2 ** 40, /beyond the end of the file/),
};

function changed(bytes: Uint8Array, { at, size, value }: Change): Uint8Array {
  const result = bytes.slice();
  const view = new DataView(result.buffer);
  const offset = at(bitmapPlaces(bytes));
  if (size === 8) view.setBigUint64(offset, BigInt(value));
  else if (size === 4) view.setUint32(offset, value);
  else if (size === 2) view.setUint16(offset, value);
  else view.setUint8(offset, value);
  return result;
}

async function failureOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return '';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    expect(['corrupt-image', 'unsupported']).toContain(error.kind);
    expect(escapeControls(error.message)).toBe(error.message);
    return error.message;
  }
}

describe('a broken bitmap', () => {
  for (const [title, change] of Object.entries(CASES)) {
    it(`is refused, and nothing is written: ${title}`, async () => {
      const bytes = changed(await makeImage(), change);
      const host = hostWith(bytes);
      const isFine = change.says.source === '^$';
      for (const readOnly of [true, false]) {
        const text = await failureOf(() => opened(host, readOnly, () => undefined));
        expect(text).toMatch(change.says);
        if (!isFine) expect(Buffer.compare(await bytesOf(host), bytes)).toBe(0);
      }
    });
  }

  it('that is marked as in use is not read, and goes away with what it had', async () => {
    const bytes = await makeImage();
    const places = bitmapPlaces(bytes);
    bytes[places.directory + 15] = 3;
    const host = hostWith(bytes);
    await opened(host, false, async (node) => {
      const [first, second] = bitmapsOf(node);
      expect([first?.inconsistent, second?.inconsistent]).toEqual([true, false]);
      expect([first?.count, second?.isDirty(0)]).toEqual([0, true]);
      await removeBitmap(node, 'first');
    });
    expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
    await opened(host, true, (node) => expect(bitmapsOf(node)).toHaveLength(1));
  });

  it('of a program that did not keep it is not there, and what it had leaks', async () => {
    const bytes = await makeImage();
    bytes.fill(0, 88, 96);
    const host = hostWith(bytes);
    await opened(host, false, async (node) => {
      expect(bitmapsOf(node)).toEqual([]);
      addBitmap(node, { name: 'first', persistent: true });
      await node.write(writeRequest(0, new Uint8Array(512)));
    });
    const result = await checkOn(host, '/image');
    expect(result.corruptions).toBe(0);
    expect(result.leaks).toBeGreaterThan(0);
    await opened(host, true, (node) => expect(bitmapsOf(node)).toHaveLength(1));
  });

  it('has at most so much memory as all may have', async () => {
    const options = { size: 2 ** 45, 'cluster-size': 65_536 };
    const bytes = await makeImage(options, 65_536, ['first', 'second', 'third']);
    const view = new DataView(bytes.buffer);
    const { directory, table } = bitmapPlaces(bytes);
    // Three times 64 MiB of bits, every cluster the same one.
    for (const entry of [0, 32, 64]) {
      const at = Number(view.getBigUint64(directory + entry));
      for (let index = 0; index < view.getUint32(directory + entry + 8); index += 1) {
        view.setBigUint64(at + index * 8, view.getBigUint64(table));
      }
    }
    const host = hostWith(bytes);
    const text = await failureOf(() => opened(host, true, () => undefined));
    expect(text).toMatch(/more than 134217728 bytes of bits/);
  });
});
