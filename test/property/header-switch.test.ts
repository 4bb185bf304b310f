// SPDX-License-Identifier: Apache-2.0
// Changing the bitmaps extension of any header: after each sector that is written, in any order
// within a step, cluster 0 names the old directory, the new one or none, and all else as before.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { BlockError } from '../../src/base/index.js';
import { decodeHeader } from '../../src/drivers/formats/qcow2/header.js';
import type { BitmapsPlace, Qcow2Header } from '../../src/drivers/formats/qcow2/header.js';
import { planBitmapsSwitch } from '../../src/drivers/formats/qcow2/header-switch.js';
import { MemoryHost } from '../../src/host/index.js';
import { createOn } from '../helpers/qcow2-create.js';

const FILE = 2 ** 40;

async function cluster0Of(clusterSize: number, backing: string | null): Promise<Uint8Array> {
  const host = new MemoryHost();
  const options = {
    size: 2 ** 20,
    'cluster-size': clusterSize,
    ...(backing !== null && { 'backing-file': backing, 'backing-fmt': 'qcow2' }),
  };
  await createOn(host, '/image', options);
  const file = await host.openFile('/image', { readOnly: true });
  const bytes = new Uint8Array(clusterSize);
  await file.read(bytes, 0);
  await file.close();
  return bytes;
}

function says(cluster0: Uint8Array): { place: BitmapsPlace | null; rest: unknown } {
  const { bitmaps, backingFile, backingFormat, fields } = decodeHeader(cluster0, FILE);
  const { autoclearFeatures: _bits, backingFileOffset: _name, ...others } = fields;
  return { place: bitmaps, rest: { backingFile, backingFormat, others } };
}

/** Every state of cluster 0 on the way; gives the last. */
function walked(cluster0: Uint8Array, header: Qcow2Header, place: BitmapsPlace | null): Uint8Array {
  const before = says(cluster0);
  let bytes = cluster0;
  for (const step of planBitmapsSwitch(header, cluster0, place).steps) {
    const next = bytes.slice();
    for (const write of step) {
      const torn = bytes.slice();
      torn.set(write.bytes, write.offset);
      next.set(write.bytes, write.offset);
      for (const state of [torn, next]) {
        const { place: found, rest } = says(state);
        expect([before.place, place, null]).toContainEqual(found);
        expect(rest).toEqual(before.rest);
        // None is only said on the way from or to none.
        if (found === null) expect(before.place === null || place === null).toBe(true);
      }
    }
    bytes = next;
  }
  expect(says(bytes)).toEqual({ place, rest: before.rest });
  return bytes;
}

const placeArbitrary = fc.option(
  fc.record({
    count: fc.integer({ min: 1, max: 65_535 }),
    offset: fc.integer({ min: 1, max: 1000 }).map((cluster) => cluster * 65_536),
    size: fc.integer({ min: 32, max: 1_000_000 }),
  }),
);

describe('the bitmaps extension', () => {
  it('changes in steps that a power cut may end anywhere', async () => {
    const images = fc.record({
      clusterSize: fc.constantFrom(1024, 4096, 65_536),
      backing: fc.option(fc.integer({ min: 1, max: 400 }).map((length) => 'b'.repeat(length))),
      places: fc.array(placeArbitrary, { minLength: 1, maxLength: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(images, async ({ clusterSize, backing, places }) => {
        let cluster0 = await cluster0Of(clusterSize, backing);
        for (const place of places) {
          const header = decodeHeader(cluster0, FILE);
          try {
            cluster0 = walked(cluster0, header, place);
          } catch (error) {
            if (!(error instanceof BlockError) || error.kind !== 'no-space') throw error;
            // Only where the backing file's name leaves no room.
            expect([clusterSize, backing !== null]).toEqual([1024, true]);
          }
        }
      }),
      { numRuns: 60 },
    );
  });
});
