// SPDX-License-Identifier: Apache-2.0
// One sync of the image file fails, for each that an operation makes, and the file goes on (as one
// behind a network does). Whatever the operation says, later writes are in the image that is found
// when it is opened again, which has no errors. Where the next sync fails as well there may be no
// later writes, but no errors either.
import { describe, expect, it } from 'vitest';
import { BlockError } from '../../src/base/index.js';
import { writeRequest } from '../../src/block/index.js';
import { OVERLAP_MODES } from '../../src/drivers/formats/qcow2/metadata/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const CLUSTER = 512;
const SIZE = 256 * CLUSTER;
const RESIZE = { preallocation: 'off', exact: false } as const;
const DATE = { dateSeconds: 1, dateNanoseconds: 0, vmClockSeconds: 0, vmClockNanoseconds: 0 };
const AMENDING = { force: false, resize: () => Promise.resolve() };

type Operation = (image: OpenedImage) => Promise<unknown>;

const first = ({ node }: OpenedImage) => node.internalSnapshots.list()[0] ?? { id: '', name: '' };

const OPERATIONS: Readonly<Record<string, Operation>> = {
  grow: ({ node }) => node.truncate(2 * SIZE, RESIZE),
  shrink: ({ node }) => node.truncate(SIZE / 2, RESIZE),
  'make a snapshot': ({ node }) => node.internalSnapshots.create({ ...DATE, name: 'b' }),
  'apply a snapshot': (image) => image.node.internalSnapshots.apply(first(image)),
  'remove a snapshot': (image) => image.node.internalSnapshots.remove(first(image)),
  'widen refcounts': ({ node }) => node.amend({ refcount_bits: 64 }, AMENDING),
  'name a backing file': ({ node }) => node.changeBacking({ file: 'below', format: 'raw' }),
  'become older': ({ node }) => node.amend({ compat: '0.10' }, AMENDING),
};

async function put(image: OpenedImage, offset: number, fill: number): Promise<void> {
  await image.node.write(writeRequest(offset, new Uint8Array(9 * CLUSTER).fill(fill)));
}

/** Gives whether the operation made so many syncs; those from `nth` to `last` fail. */
async function failSync(
  operation: Operation,
  { nth, last }: { readonly nth: number; readonly last: number },
): Promise<boolean> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER });
  const image = await openOn(host, '/image');
  await put(image, 0, 1);
  await image.node.internalSnapshots.create({ ...DATE, name: 'a' });
  await put(image, 70 * CLUSTER, 2);
  await image.node.flush();
  const below = image.node.image.file;
  const flush = below.flush.bind(below);
  let count = 0;
  below.flush = () => {
    count += 1;
    const fails = count >= nth && count <= last;
    return fails ? Promise.reject(new BlockError('io', 'flush failed')) : flush();
  };
  await operation(image).catch((error: unknown) => {
    if (!(error instanceof BlockError)) throw error;
  });
  const reached = count >= nth;
  below.flush = flush;
  try {
    await put(image, 3 * CLUSTER, 3);
    await put(image, 100 * CLUSTER, 4);
    await image.node.flush();
  } catch (error) {
    // Only where it is not known which header is there.
    if (!(error instanceof BlockError) || last === nth) throw error;
  }
  const { length } = image.node;
  const link = image.node.backingLink();
  const seen = await image.read(0, length);
  await image.node.close();
  const result = await checkOn(host, '/image');
  expect(result, result.messages.join('; ')).toMatchObject({ corruptions: 0, checkErrors: 0 });
  const again = await openOn(host, '/image');
  if (last === nth) {
    expect(again.node.length).toBe(length);
    expect(again.node.backingLink()).toEqual(link);
    expect(Buffer.compare(await again.read(0, length), seen)).toBe(0);
  }
  await again.node.close();
  return reached;
}

/** Gives whether the snapshot was made although the `nth` read of the file failed, if it did. */
async function failRead(nth: number): Promise<'refused' | 'made' | 'not reached'> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER });
  const image = await openOn(host, '/image');
  await put(image, 0, 1);
  const all = image.node.internalSnapshots;
  await all.create({ ...DATE, name: 'a' });
  await put(image, 70 * CLUSTER, 2);
  image.node.image.setPolicies({ ...image.node.image.policies, guarded: OVERLAP_MODES.all });
  const below = image.node.image.file;
  const read = below.read.bind(below);
  let count = 0;
  below.read = (request) => {
    count += 1;
    if (count === nth) throw new BlockError('io', 'read failed');
    return read(request);
  };
  const failure = await all.create({ ...DATE, name: 'b' }).then(() => null, (error) => error);
  below.read = read;
  expect(all.list().map(({ name }) => name)).toEqual(failure === null ? ['a', 'b'] : ['a']);
  await image.node.close();
  expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  if (count < nth) return 'not reached';
  return failure === null ? 'made' : 'refused';
}

describe('a snapshot of an image whose file cannot be read once', () => {
  it('is listed unless it is refused', async () => {
    const found = new Set<string>();
    for (let nth = 1; !found.has('not reached'); nth += 1) found.add(await failRead(nth));
    expect(found).toContain('made');
  });
});

describe('a qcow2 image whose header cannot be put back', () => {
  const never = () => Promise.reject(new BlockError('io', 'flush failed'));

  it.each(['grow', 'name a backing file', 'become older'])('%s: takes no write', async (name) => {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER });
    const image = await openOn(host, '/image');
    await put(image, 0, 1);
    await image.node.flush();
    const below = image.node.image.file;
    const flush = below.flush.bind(below);
    // The change itself begins with a sync, and what comes before it is not in doubt.
    const write = below.write.bind(below);
    below.write = (request) => {
      if (request.offset === 0) below.flush = never;
      return write(request);
    };
    await expect(OPERATIONS[name]?.(image)).rejects.toThrow('flush failed');
    const bytes = host.fileContents('/image').slice();
    await expect(put(image, 3 * CLUSTER, 3)).rejects.toThrow('flush failed');
    await expect(image.node.flush()).rejects.toThrow('flush failed');
    await expect(image.node.close()).rejects.toThrow('flush failed');
    below.flush = flush;
    const old = host.fileContents('/image');
    expect(Buffer.compare(old.subarray(512), bytes.subarray(512))).toBe(0);
    expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, checkErrors: 0 });
  });
});

describe('a qcow2 image whose file fails to sync once', () => {
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    it(`keeps what is written after: ${name}`, async () => {
      for (let nth = 1; await failSync(operation, { nth, last: nth }); nth += 1);
    });

    it(`is sound when the way back fails as well: ${name}`, async () => {
      for (let nth = 1; await failSync(operation, { nth, last: nth + 1 }); nth += 1);
    });
  }
});

/** Gives whether growing with preallocation made so many calls to the file; the `nth` fails. */
async function failGrowth(call: 'read' | 'write', nth: number): Promise<boolean> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER, 'refcount-bits': 64 });
  const image = await openOn(host, '/image');
  const below = image.node.image.file;
  const present = below[call].bind(below);
  let count = 0;
  below[call] = (request) => {
    count += 1;
    if (count === nth) throw new BlockError('io', `${call} failed`);
    return present(request);
  };
  await image.node
    .truncate(2 * SIZE, { ...RESIZE, preallocation: 'metadata' })
    .catch((error: unknown) => expect(error).toBeInstanceOf(BlockError));
  below[call] = present;
  await image.node.close();
  expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  return count >= nth;
}

describe('a qcow2 image that cannot be grown with preallocation', () => {
  it.each(['read', 'write'] as const)('keeps no cluster without an entry: %s', async (call) => {
    for (let nth = 1; await failGrowth(call, nth); nth += 1);
  });
});

describe('a qcow2 image whose header is in doubt', () => {
  async function inDoubt(): Promise<{ image: OpenedImage; wentBack: () => number }> {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER });
    const image = await openOn(host, '/image');
    await put(image, 0, 1);
    let count = 0;
    image.node.image.doubt.raise(async () => {
      count += 1;
    });
    return { image, wentBack: () => count };
  }

  it('is repaired only after it went back, and never goes back again', async () => {
    const { image, wentBack } = await inDoubt();
    expect(await image.node.check('all')).toMatchObject({ corruptions: 0 });
    await put(image, 0, 2);
    await image.node.close();
    expect(wentBack()).toBe(1);
  });

  it('stays marked corrupt when it went back', async () => {
    const { image, wentBack } = await inDoubt();
    const place = { offset: 0, size: 512, message: 'overlap' };
    image.node.image.markCorrupt('a test', place);
    await image.node.image.doubt.regain();
    expect([wentBack(), image.node.image.corrupt]).toEqual([1, true]);
    await image.node.close();
  });
});
