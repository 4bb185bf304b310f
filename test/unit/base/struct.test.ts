// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  assertLayout,
  bits64,
  decodeStruct,
  encodeStruct,
  rulesOf,
  struct,
  u16,
  u32,
  u64,
  u8,
  validateStruct,
} from '../../../src/base/index.js';

const SAMPLE = struct('sample', [
  u32('magic', { equals: 7 }),
  u16('width', { min: 2, max: 40, multipleOf: 2 }),
  u8('kind', { oneOf: [1, 3] }),
  u8('padding'),
  u64('tableOffset', { multipleOf: 512 }),
  bits64('flags', { since: 2 }),
  u32('order', { since: 2, otherwise: 4, json: 'refcount-order' }),
]);
const V2 = { version: 2, length: 28 };
const GOOD = {
  magic: 7,
  width: 8,
  kind: 3,
  padding: 0,
  tableOffset: 1024,
  flags: { hi: 1, lo: 2 },
  order: 6,
};

describe('struct tables', () => {
  it('decodes what it encoded, for any value', () => {
    const u32s = fc.integer({ min: 0, max: 0xffff_ffff });
    const value = fc.record({
      magic: u32s,
      width: fc.integer({ min: 0, max: 0xffff }),
      kind: fc.integer({ min: 0, max: 255 }),
      padding: fc.integer({ min: 0, max: 255 }),
      tableOffset: fc.maxSafeNat(),
      flags: fc.record({ hi: u32s, lo: u32s }),
      order: u32s,
    });
    fc.assert(
      fc.property(value, (sample) => {
        const bytes = new Uint8Array(28);
        encodeStruct(SAMPLE, sample, { bytes, ...V2 });
        expect(decodeStruct(SAMPLE, bytes, V2)).toEqual(sample);
      }),
    );
  });

  it('is big endian and places fields without gaps', () => {
    const bytes = new Uint8Array(28);
    encodeStruct(SAMPLE, GOOD, { bytes, ...V2 });
    expect(Buffer.from(bytes).toString('hex')).toBe(
      '0000000700080300' + '0000000000000400' + '0000000100000002' + '00000006',
    );
  });

  it('gives fields of later versions their other value and never reads them', () => {
    const bytes = new Uint8Array(28).fill(0xff, 16);
    const old = decodeStruct(SAMPLE, bytes, { version: 1, length: 28 });
    expect([old.flags, old.order]).toEqual([{ hi: 0, lo: 0 }, 4]);
    const short = decodeStruct(SAMPLE, bytes, { version: 2, length: 24 });
    expect([short.flags.hi, short.order]).toEqual([0xffff_ffff, 4]);
  });

  it('does not touch bytes of fields that the version lacks', () => {
    const bytes = new Uint8Array(28).fill(0xee);
    encodeStruct(SAMPLE, GOOD, { bytes, version: 1, length: 28 });
    expect([...bytes.subarray(16)]).toEqual(Array.from({ length: 12 }, () => 0xee));
  });

  it('refuses numbers above 2^53 - 1 with their exact value', () => {
    const bytes = new Uint8Array(28);
    bytes.set([0x20, 0, 0, 0, 0, 0, 0, 1], 8);
    expect(() => decodeStruct(SAMPLE, bytes, V2)).toThrow(
      'sample: must be at most 2^53 - 1 (table_offset 0x2000000000000001)',
    );
  });

  it('names field, rule and value of what is broken', () => {
    const broken = { ...GOOD, width: 42 };
    expect(() => validateStruct(SAMPLE, broken, V2)).toThrow(
      'sample: must be at most 40 (width 42)',
    );
    expect(() => validateStruct(SAMPLE, GOOD, V2)).not.toThrow();
  });

  it('offers for each rule a value that breaks it', () => {
    const rules = rulesOf(SAMPLE, V2);
    expect(rules.map(({ field, rule }) => `${field}:${rule}`)).toEqual([
      'magic:equals',
      'width:min',
      'width:max',
      'width:multipleOf',
      'kind:oneOf',
      'tableOffset:multipleOf',
    ]);
    for (const { field, json, badValue } of rules) {
      const broken = { ...GOOD, [field]: badValue };
      expect(() => validateStruct(SAMPLE, broken, V2)).toThrow(`(${json} ${badValue})`);
    }
  });

  it('fails at once when a layout does not end where the format says', () => {
    expect(() => assertLayout(SAMPLE, { 1: 16, 2: 28 })).not.toThrow();
    expect(() => assertLayout(SAMPLE, { 2: 32 })).toThrow('ends at 28, expected 32');
  });
});
