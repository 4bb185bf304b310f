// SPDX-License-Identifier: Apache-2.0
// Images broken in one place each, made by this program and then poked: what repairs are tried on.
import { RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { createOn } from './qcow2-create.js';
import { openOn } from './qcow2-node.js';

export const BROKEN_CLUSTER = 4096;
const SIZE = 4 * 2 ** 20;
const COPIED = 1n << 63n;
const OFFSET = 0x00ff_ffff_ffff_fe00n;
const FAR = 0x1000_0000n;
const DATE = { dateSeconds: 1, dateNanoseconds: 0, vmClockSeconds: 0, vmClockNanoseconds: 0 };

/** The tables of an image of 16-bit refcounts, by their offsets. */
class Poked {
  readonly bytes: Buffer;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes);
  }

  word(offset: number): bigint {
    return this.bytes.readBigUInt64BE(offset);
  }

  /** The offset that an entry holds. */
  place(offset: number): number {
    return Number(this.word(offset) & OFFSET);
  }

  put(offset: number, value: bigint): void {
    this.bytes.writeBigUInt64BE(BigInt.asUintN(64, value), offset);
  }

  get l1(): number {
    return this.place(40);
  }

  get l2(): number {
    return this.place(this.l1);
  }

  get table(): number {
    return this.place(48);
  }

  get block(): number {
    return this.place(this.table);
  }

  get snapshots(): number {
    return this.place(64);
  }

  /** The L2 table of the first snapshot. */
  get snapshotL2(): number {
    return this.place(this.place(this.snapshots));
  }

  count(hostOffset: number, refcount: number): void {
    this.bytes.writeUInt16BE(refcount, this.block + (hostOffset / BROKEN_CLUSTER) * 2);
  }
}

export type BaseImage = 'plain' | 'snapshots' | 'subclusters';

export interface BrokenKind {
  readonly name: string;
  readonly base: BaseImage;
  readonly poke: (image: Poked) => void;
  /** The reference does and says the same with `-r all`. */
  readonly like: boolean;
}

function kind(name: string, poke: BrokenKind['poke'], more: Partial<BrokenKind> = {}): BrokenKind {
  return { name, base: 'plain', poke, like: true, ...more };
}

const SNAPSHOTS = { base: 'snapshots' } as const;
const SUBCLUSTERS = { base: 'subclusters' } as const;
/** Other words, another place for new tables, or no repair at all. */
const UNLIKE = { like: false } as const;

export const BROKEN_KINDS: readonly BrokenKind[] = [
  kind('misplaced-zero', (i) => i.put(i.l2 + 1600, COPIED | 0x5201n)),
  kind('misplaced-data', (i) => i.put(i.l2, i.word(i.l2) + 512n)),
  kind('far-data', (i) => i.put(i.l2, COPIED | FAR)),
  kind('far-zero', (i) => i.put(i.l2 + 1600, COPIED | FAR | 1n)),
  kind('data-twice', (i) => i.put(i.l2 + 8, i.word(i.l2))),
  kind('data-on-its-table', (i) => i.put(i.l2, COPIED | BigInt(i.l2))),
  kind('data-on-l1', (i) => i.put(i.l2, COPIED | BigInt(i.l1))),
  kind('reserved-bits', (i) => i.put(i.l2, i.word(i.l2) | 2n)),
  kind('copied-missing', (i) => i.put(i.l2, i.word(i.l2) & ~COPIED)),
  kind('copied-missing-in-l1', (i) => i.put(i.l1, i.word(i.l1) & ~COPIED)),
  kind('far-table', (i) => i.put(i.l1, COPIED | FAR)),
  // The reference empties the clusters that it takes for leaked.
  kind('misplaced-table', (i) => i.put(i.l1, i.word(i.l1) + 512n), UNLIKE),
  kind('table-twice', (i) => i.put(i.l1 + 8, i.word(i.l1))),
  kind('l1-as-its-table', (i) => i.put(i.l1, COPIED | BigInt(i.l1)), UNLIKE),
  kind('leak', (i) => i.count(i.place(i.l2), 7)),
  kind('dropped-data', (i) => i.put(i.l2, 0n)),
  kind('refcount-0', (i) => i.count(i.place(i.l2), 0), UNLIKE),
  kind('table-refcount-0', (i) => i.count(i.l2, 0), UNLIKE),
  kind('no-refcounts', (i) => i.put(i.table, 0n), UNLIKE),
  kind('far-refcounts', (i) => i.put(i.table, FAR), UNLIKE),
  kind('misplaced-refcounts', (i) => i.put(i.table, BigInt(i.block + 512)), UNLIKE),
  kind('refcounts-on-data', (i) => i.put(i.table, BigInt(i.place(i.l2))), UNLIKE),
  kind('second-refcounts-far', (i) => i.put(i.table + 8, FAR), UNLIKE),
  kind('far-refcount-table', (i) => i.put(48, FAR), UNLIKE),
  kind('marked', (i) => i.bytes.writeUInt32BE(3, 76)),
  kind('marked-leak', (i) => {
    i.bytes.writeUInt32BE(3, 76);
    i.count(i.place(i.l2), 3);
  }),
  kind('misplaced-zero-in-snapshot', (i) => i.put(i.snapshotL2 + 1600, 0x5201n), SNAPSHOTS),
  kind('short-entry', (i) => i.bytes.writeUInt32BE(3, 60), SNAPSHOTS),
  kind('snapshot-on-active-l1', (i) => i.put(i.snapshots, BigInt(i.l1)), {
    ...SNAPSHOTS,
    ...UNLIKE,
  }),
  kind('misplaced-snapshots', (i) => i.put(64, BigInt(i.snapshots + 512)), {
    ...SNAPSHOTS,
    ...UNLIKE,
  }),
  kind('snapshot-table-refcount-9', (i) => i.count(i.snapshots, 9), SNAPSHOTS),
  kind('snapshot-data-refcount-9', (i) => i.count(i.place(i.snapshotL2), 9), SNAPSHOTS),
  kind('copied-on-shared', (i) => i.put(i.l2, i.word(i.l2) | COPIED), SNAPSHOTS),
  kind('misplaced-zeroes', (i) => {
    i.put(i.l2 + 3200, COPIED | 0x5200n);
    i.put(i.l2 + 3208, 0xffff_ffff_0000_0000n);
  }, SUBCLUSTERS),
  kind('bits-of-both-kinds', (i) => i.put(i.l2 + 8, i.word(i.l2 + 8) | (1n << 40n)), SUBCLUSTERS),
  kind('bits-without-place', (i) => i.put(i.l2 + 3208, 5n), SUBCLUSTERS),
];

/** The sound images that the kinds begin with. */
export async function baseImages(): Promise<Readonly<Record<BaseImage, Uint8Array>>> {
  return {
    plain: await made('plain'),
    snapshots: await made('snapshots'),
    subclusters: await made('subclusters'),
  };
}

async function made(base: BaseImage): Promise<Uint8Array> {
  const host = new MemoryHost();
  const cluster = base === 'subclusters' ? 4 * BROKEN_CLUSTER : BROKEN_CLUSTER;
  const extended = base === 'subclusters' ? { 'extended-l2': true } : {};
  await createOn(host, '/image', { size: SIZE, 'cluster-size': cluster, ...extended });
  const { node } = await openOn(host, '/image');
  const put = (offset: number, length: number, fill: number, flags = 0): unknown =>
    node.write(writeRequest(offset, new Uint8Array(length).fill(fill), flags));
  await put(0, 16 * cluster, 1);
  await put(20 * cluster, cluster, 2, RequestFlag.compressed);
  await put(SIZE / 2, 2 * cluster, 3);
  await node.writeZeroes(zeroRequest(16 * cluster, 2 * cluster, 0));
  if (base === 'snapshots') {
    await node.internalSnapshots.create({ ...DATE, name: 'a' });
    await put(0, 4 * cluster, 4);
    await node.internalSnapshots.create({ ...DATE, name: 'b' });
  }
  await node.close();
  return host.fileContents('/image').slice();
}

export function broken(sound: Uint8Array, { poke }: BrokenKind): Uint8Array {
  const image = new Poked(sound);
  poke(image);
  return image.bytes;
}
