// SPDX-License-Identifier: Apache-2.0
// Entries of tables with each bit in turn that their layout leaves without a meaning, and places
// between clusters: a check finds it, reading gives data or one named error. Header extensions of
// every known type are refused where they do not fit.
import { beforeAll, describe, expect, it } from 'vitest';
import { BlockError, hasBit } from '../../src/base/index.js';
import type { BitMask } from '../../src/base/index.js';
import { readRequest, RequestFlag, writeRequest } from '../../src/block/index.js';
import {
  BITMAP_TABLE_ENTRY,
  ExtensionType,
  L1_ENTRY,
  L2_ENTRY,
} from '../../src/drivers/formats/qcow2/layout.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { openOn } from '../helpers/qcow2-node.js';

const CLUSTER = 16_384;
const SIZE = 64 * CLUSTER;
const PLACE = 0x00ff_ffff_ffff_fe00n;

async function imageBytes(options: object = {}): Promise<Buffer> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER, ...options } as never);
  const { node } = await openOn(host, '/image');
  await node.write(writeRequest(0, new Uint8Array(2 * CLUSTER).fill(1)));
  const packed = new Uint8Array(CLUSTER).fill(2);
  await node.write(writeRequest(4 * CLUSTER, packed, RequestFlag.compressed));
  await node.close();
  return Buffer.from(host.fileContents('/image'));
}

const bitsOf = ({ hi, lo }: BitMask): number[] =>
  Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => hasBit({ hi, lo }, bit));

/** What is wrong by a check, and reading, which gives data or a BlockError. */
async function findings(bytes: Buffer): Promise<number> {
  const host = new MemoryHost();
  host.putFile('/image', bytes);
  const { node } = await openOn(host, '/image');
  try {
    await node.read(readRequest(0, new Uint8Array(SIZE)));
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    expect(error.kind).toBe('corrupt-image');
    expect(error.message).toMatch(/^[^\r\n]+$/);
  }
  const { corruptions, checkErrors } = await checkBytes(bytes);
  return corruptions + checkErrors;
}

function flipped(bytes: Buffer, at: number, bit: number): Buffer {
  const result = Buffer.from(bytes);
  result.writeBigUInt64BE(result.readBigUInt64BE(at) ^ (1n << BigInt(bit)), at);
  return result;
}

const l1 = (bytes: Buffer): number => Number(bytes.readBigUInt64BE(40));
const l2 = (bytes: Buffer): number => Number(bytes.readBigUInt64BE(l1(bytes)) & PLACE);
const refcountTable = (bytes: Buffer): number => Number(bytes.readBigUInt64BE(48));

describe('a bit without a meaning is found', () => {
  let plain: Buffer;
  let extended: Buffer;
  beforeAll(async () => {
    plain = await imageBytes();
    extended = await imageBytes({ 'extended-l2': true });
  });

  it('in each place of an L1 entry', async () => {
    for (const bit of bitsOf(L1_ENTRY.reserved)) {
      expect(await findings(flipped(plain, l1(plain), bit)), `${bit}`).toBeGreaterThan(0);
    }
  });

  it('in each place of an L2 entry', async () => {
    for (const bit of bitsOf(L2_ENTRY.reserved)) {
      expect(await findings(flipped(plain, l2(plain), bit)), `${bit}`).toBeGreaterThan(0);
      expect(await findings(flipped(extended, l2(extended), bit)), `${bit}`).toBeGreaterThan(0);
    }
  });

  it('in each place of a refcount table entry', async () => {
    for (let bit = 0; bit < 14; bit += 1) {
      const at = refcountTable(plain);
      expect(await findings(flipped(plain, at, bit)), `${bit}`).toBeGreaterThan(0);
    }
  });

  it('below the clusters of any entry that names one', async () => {
    for (let bit = 9; bit < 14; bit += 1) {
      for (const place of [l1, l2]) {
        expect(await findings(flipped(plain, place(plain), bit)), `${bit}`).toBeGreaterThan(0);
      }
    }
  });

  it('in a bitmap table, of which the layout says which are reserved', () => {
    expect(bitsOf(BITMAP_TABLE_ENTRY.reserved)).toEqual([
      ...Array.from({ length: 8 }, (_, bit) => bit + 1),
      ...Array.from({ length: 8 }, (_, bit) => bit + 56),
    ]);
  });
});

describe('a header extension that does not fit', () => {
  const known = Object.entries(ExtensionType).filter(([name]) => name !== 'end');
  it.each(known)('is refused: %s', async (_, type) => {
    const bytes = await imageBytes();
    for (const length of [CLUSTER, 2 ** 31, 2 ** 32 - 1]) {
      bytes.writeUInt32BE(type, 112);
      bytes.writeUInt32BE(length, 116);
      const host = new MemoryHost();
      host.putFile('/image', bytes);
      const failure = await openOn(host, '/image').then(() => null, (error: unknown) => error);
      expect(failure).toMatchObject({ kind: 'corrupt-image' });
      expect((failure as BlockError).message).toContain(`length ${length}`);
    }
  });
});
