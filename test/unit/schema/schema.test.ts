// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, expectTypeOf, it } from 'vitest';

import { JsonDouble } from '../../../src/base/index.js';
import {
  alternate,
  bool,
  command,
  deferred,
  enumeration,
  int,
  list,
  nothing,
  optional,
  parseKeyval,
  parseSizeText,
  size,
  str,
  struct,
  uint,
  uint32,
  union,
  validate,
} from '../../../src/schema/index.js';
import type { ArgumentsOf, Infer, Type } from '../../../src/schema/index.js';

const mode = enumeration('Mode', ['off', 'on']);

type NodeValue = { readonly driver: string; readonly [member: string]: unknown };
const node = deferred<NodeValue>('Node');
const ref = alternate('NodeRef', { definition: node, reference: str });
const refOrNull = alternate('NodeRefOrNull', { definition: node, reference: str, null: nothing });
node.define(
  union('Node', {
    base: { name: optional(str), mode: optional(mode) },
    discriminator: 'driver',
    tagName: 'NodeDriver',
    branches: () => ({
      format: struct('NodeFormat', { file: ref, backing: optional(refOrNull) }),
      file: struct('NodeFile', { filename: str, tags: optional(list(str)) }),
      null: struct('NodeNull', { size: optional(int), limit: optional(size), on: optional(bool) }),
      empty: null,
    }),
  }),
);

function refusal(type: Type, value: unknown): string {
  try {
    validate(type, value);
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
}

describe('validation', () => {
  it.each([
    [{}, "Parameter 'driver' is missing"],
    [{ driver: 'zip' }, "Parameter 'driver' does not accept value 'zip'"],
    [{ driver: 1 }, "Invalid parameter type for 'driver', expected: string"],
    [{ driver: 'format' }, "Parameter 'file' is missing"],
    [{ driver: 'format', file: {} }, "Parameter 'file.driver' is missing"],
    [{ driver: 'format', file: { driver: 'file' } }, "Parameter 'file.filename' is missing"],
    [
      { driver: 'format', file: { driver: 'file', filename: 1 } },
      "Invalid parameter type for 'file.filename', expected: string",
    ],
    [
      { driver: 'format', file: { driver: 'file', filename: 'x', xx: 1 } },
      "Parameter 'file.xx' is unexpected",
    ],
    [
      { driver: 'format', file: { driver: 'null', mode: 'no' } },
      "Parameter 'mode' does not accept value 'no'",
    ],
    [{ driver: 'format', file: 1 }, "Invalid parameter type for 'file', expected: NodeRef"],
    [{ driver: 'format', file: null }, "Invalid parameter type for 'file', expected: NodeRef"],
    [
      { driver: 'file', filename: 'x', tags: 1 },
      "Invalid parameter type for 'tags', expected: array",
    ],
    [
      { driver: 'file', filename: 'x', tags: ['a', 2] },
      "Invalid parameter type for 'tags[1]', expected: string",
    ],
    [{ driver: 'null', size: '1k' }, "Invalid parameter type for 'size', expected: integer"],
    [
      { driver: 'null', size: new JsonDouble(1) },
      "Invalid parameter type for 'size', expected: integer",
    ],
    [{ driver: 'null', on: 'yes' }, "Invalid parameter type for 'on', expected: boolean"],
    [{ driver: 'empty', size: 1 }, "Parameter 'size' is unexpected"],
    [7, "Invalid parameter type for 'null', expected: object"],
  ])('of %j answers in the words of QMP', (value, message) => {
    expect(refusal(node, value)).toBe(message);
  });

  it('accepts every branch of an alternate', () => {
    const nested = { driver: 'format', file: { driver: 'empty' }, backing: null };
    expect(validate(node, nested)).toEqual(nested);
    expect(validate(node, { driver: 'format', file: 'n' })).toEqual({
      driver: 'format',
      file: 'n',
    });
  });

  it('takes no member from the prototype', () => {
    expect(refusal(node, Object.create({ driver: 'empty' }))).toBe("Parameter 'driver' is missing");
    expect(refusal(struct('S', {}), { toString: 1 })).toBe("Parameter 'toString' is unexpected");
  });

  it('gives safe integers as numbers and larger ones as bigints', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
        const got = validate(int, value);
        expect(BigInt(got)).toBe(value);
        expect(typeof got).toBe(Number.isSafeInteger(Number(value)) ? 'number' : 'bigint');
      }),
    );
  });

  it('checks the range of integers', () => {
    expect(refusal(int, 2n ** 63n)).toBe("Invalid parameter type for 'null', expected: integer");
    expect(refusal(struct('S', { g: uint32 }), { g: -1 })).toBe("Parameter 'g' expects uint32_t");
    expect(refusal(struct('S', { g: uint32 }), { g: 2 ** 32 })).toBe(
      "Parameter 'g' expects uint32_t",
    );
    expect(refusal(struct('S', { g: uint }), { g: 2n ** 63n })).toContain('too large');
    expect(refusal(struct('S', { g: uint }), { g: -1 })).toContain('non-negative');
  });
});

describe('static types', () => {
  it('follow the declaration', () => {
    const sample = struct('Sample', { a: str, b: optional(list(mode)) }, { base: { c: size } });
    expectTypeOf<Infer<typeof sample>>().toEqualTypeOf<{
      readonly c: number;
      readonly a: string;
      readonly b?: readonly ('off' | 'on')[];
    }>();
    const declared = command({
      name: 'do-it',
      since: '0',
      doc: '',
      args: { id: str, n: optional(int) },
    });
    expectTypeOf<ArgumentsOf<typeof declared>>().toEqualTypeOf<{
      readonly id: string;
      readonly n?: number | bigint;
    }>();
  });
});

/** As the daemon reads its options. */
const readKeyval = (text: string, impliedKey: string | null = null): unknown =>
  validate(node, parseKeyval(text, impliedKey), '', 'keyval');

describe('key=value options', () => {
  it('nest by dots, undo doubled commas and take an implied first key', () => {
    expect(parseKeyval('format,file.driver=file,file.filename=a,,b.img', 'driver')).toEqual({
      driver: 'format',
      file: { driver: 'file', filename: 'a,b.img' },
    });
  });

  it('convert leaves by their type', () => {
    expect(readKeyval('null,size=0x10,limit=1.5k,on=yes', 'driver')).toEqual({
      driver: 'null',
      size: 16,
      limit: 1536,
      on: true,
    });
    expect(readKeyval('file,filename=x,tags.0=a,tags.1=b', 'driver')).toMatchObject({
      tags: ['a', 'b'],
    });
  });

  it('let a later value win', () => {
    expect(readKeyval('driver=file,driver=empty')).toEqual({ driver: 'empty' });
  });

  it.each([
    ['null,size=1k', "Parameter 'size' expects integer"],
    ['null,on=maybe', "Parameter 'on' expects 'on' or 'off'"],
    ['null,a', "Expected '=' after parameter 'a'"],
    ['=x', "Invalid parameter ''"],
    ['null,a..b=1', "Invalid parameter 'a..b'"],
    ['null,.a=1', "Invalid parameter '.a'"],
    ['null,1a=1', "Invalid parameter '1a'"],
    ['format,file.driver=file,file=zz', "Parameters 'file.*' used inconsistently"],
    ['format,file.0=x', "Invalid parameter type for 'file', expected: NodeRef"],
    ['format,file.driver=file,file.0=a', "Parameters 'file.*' used inconsistently"],
    ['nothing', "Parameter 'driver' does not accept value 'nothing'"],
    ['', "Parameter 'driver' is missing"],
    ['null,size=18446744073709551616', "Parameter 'size' expects integer"],
  ])('%j is refused in the words of the reference', (text, message) => {
    expect(() => readKeyval(text, 'driver')).toThrow(message);
  });

  it('read sizes as the command lines write them', () => {
    const cases: readonly (readonly [string, bigint | undefined])[] = [
      ['64k', 65_536n],
      ['1.5G', 1_610_612_736n],
      ['0x200', 512n],
      ['10', 10n],
      ['1.5', undefined],
      ['k', undefined],
      ['-1', undefined],
      ['1kk', undefined],
    ];
    for (const [text, bytes] of cases) expect(parseSizeText(text)).toBe(bytes);
  });
});
