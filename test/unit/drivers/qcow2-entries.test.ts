// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  compressedEntryHi,
  compressedEntryLo,
  compressedHostOffset,
  compressedLength,
  compressedSectors,
  EntryKind,
  entryHi,
  entryHostOffset,
  entryKind,
  entryLo,
  hasReservedL2Bits,
  isCopied,
} from '../../../src/drivers/formats/qcow2/entries.js';
import { geometryOf } from '../../../src/drivers/formats/qcow2/layout.js';

describe('L2 entries', () => {
  it('keep offset, copied flag and zero flag', () => {
    const sector = fc.integer({ min: 0, max: 2 ** 44 - 1 });
    fc.assert(
      fc.property(sector, fc.boolean(), fc.boolean(), (number, copied, zero) => {
        const offset = number * 512;
        const hi = entryHi(offset, copied);
        const lo = entryLo(offset, zero);
        expect(entryHostOffset(hi, lo)).toBe(offset);
        expect(isCopied(hi)).toBe(copied);
        expect(hasReservedL2Bits(hi, lo, 3)).toBe(false);
        const allocated = zero ? EntryKind.zeroAllocated : EntryKind.data;
        const empty = zero ? EntryKind.zero : EntryKind.unallocated;
        expect(entryKind(hi, lo, 3)).toBe(offset === 0 ? empty : allocated);
      }),
    );
  });

  it('have no zero flag in version 2', () => {
    expect(entryKind(0x8000_0000, 0x5_0001, 2)).toBe(EntryKind.invalid);
    expect(hasReservedL2Bits(0, 1, 2)).toBe(true);
  });

  it('of compressed clusters keep byte offset and cover the data with whole sectors', () => {
    const bits = fc.integer({ min: 9, max: 21 });
    fc.assert(
      fc.property(bits, fc.nat(2 ** 40), fc.nat(), (clusterBits, hostOffset, seed) => {
        const length = 1 + (seed % (2 ** clusterBits - 1));
        const hi = compressedEntryHi({ hostOffset, length }, clusterBits);
        const lo = compressedEntryLo(hostOffset);
        expect(entryKind(hi, lo, 2)).toBe(EntryKind.compressed);
        expect(isCopied(hi)).toBe(false);
        expect(compressedHostOffset(hi, lo, clusterBits)).toBe(hostOffset);
        const covered = compressedLength(hi, lo, clusterBits);
        expect(covered).toBeGreaterThanOrEqual(length);
        expect(covered - length).toBeLessThan(512);
        expect((hostOffset + covered) % 512).toBe(0);
        expect(compressedSectors(hi, clusterBits)).toBe(
          (hostOffset + covered) / 512 - Math.floor(hostOffset / 512),
        );
      }),
    );
  });

  it('read as the reference wrote them', () => {
    // The first compressed cluster of an image with 4 KiB clusters: data at 0x19000, one sector.
    expect(compressedHostOffset(0x4000_0000, 0x0001_9000, 12)).toBe(0x19000);
    expect(compressedLength(0x4000_0000, 0x0001_9000, 12)).toBe(512);
  });
});

describe('geometry', () => {
  it('follows from cluster size and refcount width', () => {
    expect(geometryOf(16, 4)).toMatchObject({
      clusterSize: 65_536,
      l2Entries: 8192,
      l2Coverage: 512 * 1024 * 1024,
      refcountBits: 16,
      maxRefcount: 65_535,
      refcountBlockEntries: 32_768,
      refcountBlockCoverage: 2 ** 31,
    });
    expect(geometryOf(9, 0)).toMatchObject({ maxRefcount: 1, refcountBlockEntries: 4096 });
    expect(geometryOf(21, 6)).toMatchObject({ refcountBits: 64, refcountBlockEntries: 262_144 });
  });
});
