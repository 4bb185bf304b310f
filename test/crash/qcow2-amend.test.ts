// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write of an amendment: the image opens, checks without an error and
// reads as before, whatever of the unsynced writes is there.
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import type { AmendContext, AmendOptions } from '../../src/block/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import type { CreateOptions } from '../helpers/qcow2-create.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const PATH = '/image';
const SUBSETS = 3;
const BACKING = new Uint8Array(150 * 1024).fill(0x11);

interface Case {
  readonly name: string;
  readonly create: Partial<CreateOptions>;
  readonly amend: AmendOptions;
  /** Refcounts, version and so on afterwards. */
  readonly data: Readonly<Record<string, unknown>>;
}

const WIDE = { compat: '1.1', 'refcount-bits': 64 };
const OLD = { compat: '0.10', 'refcount-bits': 16 };

const CASES: readonly Case[] = [
  { name: 'down to version 2', create: {}, amend: { compat: '0.10' }, data: OLD },
  {
    name: 'down to version 2 with small clusters',
    create: { 'cluster-size': 512 },
    amend: { compat: '0.10' },
    data: OLD,
  },
  { name: 'up to version 3', create: { version: 'v2' }, amend: { compat: '1.1' }, data: {} },
  { name: 'wider refcounts', create: {}, amend: { refcount_bits: 64 }, data: WIDE },
  {
    name: 'narrower refcounts with small clusters',
    create: { 'cluster-size': 512, 'refcount-bits': 64 },
    amend: { refcount_bits: 8 },
    data: { 'refcount-bits': 8 },
  },
  {
    name: 'all at once',
    create: { version: 'v2', 'cluster-size': 1024 },
    amend: { compat: 'v3', refcount_bits: 64, lazy_refcounts: true, size: 512 * 1024 },
    data: { ...WIDE, 'lazy-refcounts': true },
  },
  {
    name: 'back from it all',
    create: { 'lazy-refcounts': true, 'refcount-bits': 8 },
    amend: { compat: 'v2', refcount_bits: 16, size: 512 * 1024 },
    data: OLD,
  },
];

const SIZE = 256 * 1024;

async function prepared(disk: MemoryHost, create: Partial<CreateOptions>, backed: boolean) {
  await createOn(disk, PATH, {
    size: SIZE,
    'cluster-size': 4096,
    ...create,
    ...(backed && { 'backing-file': 'base', 'backing-fmt': 'raw' }),
  });
  const image = await reopen(disk, backed);
  const { node } = image;
  const { clusterSize } = node.image;
  const bytes = new Uint8Array(40_960);
  new SeededRandom(5).fill(bytes);
  await node.write(writeRequest(8192, bytes));
  await node.write(writeRequest(16 * 8192, bytes.fill(3, 0, 9000).subarray(0, clusterSize)));
  const packed = new Uint8Array(clusterSize).fill(9);
  await node.write(writeRequest(24 * 8192, packed, RequestFlag.compressed));
  await node.writeZeroes(zeroRequest(16_384, 8192, 0));
  await node.writeZeroes(zeroRequest(81_920, 16_384, RequestFlag.mayUnmap));
  await node.flush();
  return image;
}

function reopen(host: MemoryHost, backed: boolean): Promise<OpenedImage> {
  return openOn(host, PATH, backed ? backingNode(BACKING) : null);
}

function contextOf({ node }: OpenedImage, more: Partial<AmendContext> = {}): AmendContext {
  const resize = (size: number): Promise<void> =>
    node.truncate(size, { exact: false, preallocation: 'off' });
  return { force: false, resize, ...more };
}

async function requireSame(host: MemoryHost, backed: boolean, view: Uint8Array): Promise<void> {
  const image = await reopen(host, backed);
  const length = Math.min(image.node.length, view.length);
  expect(Buffer.compare(await image.read(0, length), view.subarray(0, length))).toBe(0);
}

describe('a power cut while an image is amended', () => {
  for (const { name, create, amend, data } of CASES) {
    for (const backed of [false, true]) {
      it(`leaves the view: ${name}${backed ? ' over a backing file' : ''}`, async () => {
        const disk = new CrashDisk({ seed: 7 });
        const random = new SeededRandom(7);
        const image = await prepared(disk, create, backed);
        const view = await image.read(0, SIZE);
        const survivors: MemoryHost[] = [];
        disk.onWrite = () => {
          for (let each = 0; each < SUBSETS; each += 1) {
            survivors.push(disk.afterPowerLoss(random));
          }
        };
        const done: number[] = [];
        await image.node.amend(
          amend,
          contextOf(image, { progress: (part, total) => done.push(part / total) }),
        );
        expect(done).toEqual(done.toSorted((a, b) => a - b));
        await image.node.close();
        disk.onWrite = null;
        expect(survivors.length).toBeGreaterThan(0);
        for (const survivor of survivors) {
          const { corruptions, checkErrors } = await checkOn(survivor, PATH);
          expect([corruptions, checkErrors]).toEqual([0, 0]);
          await requireSame(survivor, backed, view);
        }
        await requireSame(disk, backed, view);
        expect(await checkOn(disk, PATH)).toMatchObject({ corruptions: 0, leaks: 0 });
        const after = await reopen(disk, backed);
        expect(after.node.info().specific?.data).toMatchObject(data);
      });
    }
  }

  it('goes on with the image that was amended, without opening it again', async () => {
    const disk = new CrashDisk({ seed: 3 });
    const image = await prepared(disk, {}, true);
    const { node } = image;
    const bytes = new Uint8Array(20_000).fill(0x5c);
    for (const options of [{ refcount_bits: 1 }, { refcount_bits: 16 }, { compat: '0.10' }]) {
      await node.amend(options, contextOf(image));
      await node.write(writeRequest(30_000, bytes));
      await node.writeZeroes(zeroRequest(90_112, 4096, RequestFlag.mayUnmap));
      await node.flush();
    }
    const view = await image.read(0, SIZE);
    await node.close();
    await requireSame(disk, true, view);
    expect(await checkOn(disk, PATH)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('refuses before anything is changed, and can be cancelled', async () => {
    const disk = new CrashDisk({ seed: 3 });
    const image = await prepared(disk, {}, false);
    const before = disk.fileContents(PATH).slice();
    const refused: readonly AmendOptions[] = [
      { compat: '0.10', backing_file: 'other' },
      { refcount_bits: 64, compat: '0.10' },
      { refcount_bits: 64, size: 1000 },
      { compat: '0.9', size: 1024 },
      { 'encrypt.state': 'active', refcount_bits: 1 },
    ];
    for (const options of refused) {
      await expect(image.node.amend(options, contextOf(image))).rejects.toThrow();
    }
    const cancelled = contextOf(image, { isCancelled: () => true });
    const attempt = image.node.amend({ refcount_bits: 64 }, cancelled);
    await expect(attempt).rejects.toMatchObject({ kind: 'cancelled' });
    expect(Buffer.compare(disk.fileContents(PATH), before)).toBe(0);
  });

  it('keeps extensions and compatible bits that it does not know', async () => {
    const disk = new CrashDisk({ seed: 3 });
    const image = await prepared(disk, { version: 'v2' }, false);
    await image.node.close();
    const bytes = disk.fileContents(PATH).slice();
    bytes.set([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 5, 1, 2, 3, 4, 5], 72);
    disk.putFile(PATH, bytes);
    const again = await reopen(disk, false);
    for (const compat of ['1.1', '0.10', '1.1']) {
      await again.node.amend({ compat }, contextOf(again));
    }
    await again.node.close();
    const { extensions } = again.node.image.structures.header;
    const kept = extensions.find(({ type }) => type === 0x12345678);
    expect(kept?.data).toEqual(Uint8Array.of(1, 2, 3, 4, 5));
    const header = Buffer.from(disk.fileContents(PATH).subarray(0, 512));
    expect(header.includes(Buffer.from([0x12, 0x34, 0x56, 0x78]))).toBe(true);
  });
});
