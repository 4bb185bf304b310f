// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bit64,
  bitfield64,
  bitNumbers,
  hasBit,
  hexBits,
  orBits,
  withoutBits,
} from '../../../src/base/index.js';

const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const split = (value: bigint) => ({ hi: Number(value >> 32n), lo: Number(value & 0xffff_ffffn) });

describe('64-bit words as two halves', () => {
  it('masks cover named bits, and reserved covers all others', () => {
    const masks = bitfield64({ copied: 63, compressed: 62, hostOffset: [9, 55], zero: 0 });
    expect(masks.copied).toEqual({ hi: 0x8000_0000, lo: 0 });
    expect(masks.hostOffset).toEqual({ hi: 0x00ff_ffff, lo: 0xffff_fe00 });
    expect(masks.reserved).toEqual({ hi: 0x3f00_0000, lo: 0x1fe });
  });

  it('overlapping fields are a mistake in the table', () => {
    expect(() => bitfield64({ a: [0, 8], b: 8 })).toThrow('overlaps');
  });

  it('hex and bit numbers agree with BigInt', () => {
    fc.assert(
      fc.property(word, (value) => {
        expect(hexBits(split(value))).toBe(value.toString(16));
        const numbers = bitNumbers(split(value));
        expect(numbers.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n)).toBe(value);
      }),
    );
  });

  it('setting and clearing a bit changes that bit only', () => {
    fc.assert(
      fc.property(word, fc.integer({ min: 0, max: 63 }), (value, bit) => {
        const set = orBits(split(value), bit64(bit));
        expect(hasBit(set, bit)).toBe(true);
        const cleared = withoutBits(set, bit64(bit));
        expect(hexBits(cleared)).toBe((value & ~(1n << BigInt(bit))).toString(16));
      }),
    );
  });
});
