// SPDX-License-Identifier: Apache-2.0
// The bits of a bitmap in stored pieces: loaded into another one they are the same, whatever the
// length of the pieces.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { bitmapSha256, DirtyBitmap } from '../../src/block/index.js';

const ranges = fc.array(
  fc.record({
    offset: fc.integer({ min: 0, max: 60_000_000 }),
    length: fc.integer({ min: 1, max: 30_000_000 }),
    dirty: fc.boolean(),
  }),
  { maxLength: 12 },
);

describe('stored bits', () => {
  it('load as they were', () =>
    fc.assert(
      fc.asyncProperty(
        ranges,
        fc.constantFrom(512, 4096, 65_536),
        fc.integer({ min: 1, max: 70_000_000 }),
        async (changes, length, size) => {
          const bitmap = new DirtyBitmap({ name: 'b', size, granularity: 512 });
          for (const { offset, length: bytes, dirty } of changes) {
            if (offset + bytes > size) continue;
            if (dirty) bitmap.set(offset, bytes);
            else bitmap.clear(offset, bytes);
          }
          const copy = new DirtyBitmap({ name: 'c', size, granularity: 512 });
          for (const { index, bytes } of bitmap.pieces(length)) {
            const first = index * length * 8;
            if (bytes === 'dirty') copy.loadDirty(first, length * 8);
            else copy.load(first, bytes);
          }
          expect(copy.count).toBe(bitmap.count);
          expect(await bitmapSha256(copy)).toBe(await bitmapSha256(bitmap));
        },
      ),
      { numRuns: 60 },
    ));
});
