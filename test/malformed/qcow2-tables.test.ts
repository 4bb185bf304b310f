// SPDX-License-Identifier: Apache-2.0
// Images whose tables say anything at all: requests end with data or with a named error, never
// with a crash or a hang, and no guest byte ever lands in the header or the top-level tables.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockError, SeededRandom } from '../../src/base/index.js';
import { discardRequest, RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { createOn } from '../helpers/qcow2-create.js';
import { openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const CLUSTER = 1024;
const SIZE = 400 * CLUSTER;
/** A word that no table of these images holds: it marks guest data. */
const GUEST = 0xa5;

interface Damage {
  /** Which of the image's table clusters, and which entry in it. */
  readonly table: number;
  readonly entry: number;
  readonly hi: number;
  readonly lo: number;
}

const damages: fc.Arbitrary<Damage> = fc.record({
  table: fc.nat({ max: 1000 }),
  entry: fc.nat({ max: CLUSTER / 8 - 1 }),
  hi: fc.constantFrom(0, 0x8000_0000, 0x4000_0000, 0xffff_ffff, 0x80ff_ffff, 0x00ff_0000),
  lo: fc.oneof(
    fc.nat({ max: 40 }).map((cluster) => cluster * CLUSTER),
    fc.integer({ min: 0, max: 0xffff_ffff }),
  ),
});

async function attempt(act: () => unknown): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

async function soundImage(refcountBits: number): Promise<{ bytes: Uint8Array; tables: number[] }> {
  const host = new MemoryHost();
  const options = { size: SIZE, 'cluster-size': CLUSTER, 'refcount-bits': refcountBits };
  await createOn(host, '/image', options);
  const image = await openOn(host, '/image');
  await image.node.write(writeRequest(0, new Uint8Array(20 * CLUSTER).fill(GUEST)));
  await image.node.write(writeRequest(300 * CLUSTER, new Uint8Array(3 * CLUSTER).fill(GUEST)));
  const packed = new Uint8Array(4 * CLUSTER).fill(GUEST);
  await image.node.write(writeRequest(40 * CLUSTER, packed, RequestFlag.compressed));
  const state = image.node.image;
  const tables = [state.l1Offset, state.refcountTableOffset];
  for (let index = 0; index * 8 < state.l1.length; index += 1) tables.push(state.l2Offset(index));
  for (let at = 0; at < state.refcountTable.length; at += 8) {
    tables.push(state.refcountTableView.getUint32(at + 4));
  }
  await image.node.close();
  return { bytes: host.fileContents('/image'), tables: tables.filter((offset) => offset > 0) };
}

async function exercise(image: OpenedImage, seed: number): Promise<void> {
  const random = new SeededRandom(seed);
  const { node } = image;
  await attempt(() => image.read(0, SIZE));
  for (let step = 0; step < 25; step += 1) {
    const offset = random.below(SIZE / 512 - 40) * 512;
    const data = new Uint8Array(512 * (1 + random.below(40))).fill(GUEST);
    const whole = Math.floor(offset / CLUSTER) * CLUSTER;
    const request = [
      () => node.write(writeRequest(offset, data)),
      () => image.read(offset, data.length),
      () => node.writeZeroes(zeroRequest(offset, data.length, step)),
      () => node.discard(discardRequest(offset, data.length)),
      () => node.write(writeRequest(whole, data.subarray(0, CLUSTER), RequestFlag.compressed)),
      () => node.blockStatus(offset, data.length, step % 2 === 0),
      () => node.planExtents(offset, data.length),
      () => node.flush(),
      async () => (await node.reserve(whole, CLUSTER))?.abandon(),
    ][random.below(9)];
    await attempt(() => request?.());
  }
  await attempt(() => node.close());
}

describe('qcow2 tables with damaged entries', () => {
  it('never crash a request and never lose the header to guest data', async () => {
    const images = await Promise.all([1, 16, 64].map(soundImage));
    const list = fc.array(damages, { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: 2 }), list, fc.nat(), async (which, wounds, seed) => {
        const sound = images[which] ?? images[0];
        if (sound === undefined) return;
        const bytes = sound.bytes.slice();
        const view = new DataView(bytes.buffer);
        for (const { table, entry, hi, lo } of wounds) {
          const at = (sound.tables[table % sound.tables.length] ?? 0) + entry * 8;
          if (at + 8 > bytes.length) continue;
          view.setUint32(at, hi);
          view.setUint32(at + 4, lo);
        }
        const host = new MemoryHost({ seed });
        host.putFile('/image', bytes);
        await attempt(async () => exercise(await openOn(host, '/image'), seed));
        const after = host.fileContents('/image');
        const guestWord = Buffer.alloc(16, GUEST);
        expect(Buffer.from(after.subarray(0, CLUSTER)).includes(guestWord)).toBe(false);
        // The refcount table's place, bytes 48 to 59, may move; the rest of the header stands.
        expect(after.subarray(0, 48)).toEqual(bytes.subarray(0, 48));
        expect(after.subarray(60, 72)).toEqual(bytes.subarray(60, 72));
      }),
      { numRuns: 300 },
    );
  }, 120_000);
});
