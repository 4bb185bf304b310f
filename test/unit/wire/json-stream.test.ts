// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { JsonDouble } from '../../../src/base/index.js';
import { JsonStream, JsonSyntaxError, parseJson, quoteJson } from '../../../src/wire/index.js';
import { RawJson, writeJson } from '../../../src/wire/index.js';
import type { JsonMessage, JsonStreamLimits } from '../../../src/wire/index.js';

function feed(
  pieces: readonly (string | Uint8Array)[],
  limits?: JsonStreamLimits,
): readonly JsonMessage[] {
  const messages: JsonMessage[] = [];
  const stream = new JsonStream((message) => messages.push(message), limits);
  for (const piece of pieces) {
    stream.feed(typeof piece === 'string' ? Buffer.from(piece, 'utf8') : piece);
  }
  return messages;
}

/** Values and errors in order; errors without their common beginning. */
function outcome(...pieces: readonly (string | Uint8Array)[]): unknown[] {
  return feed(pieces).map((message) =>
    message.ok ? message.value : message.error.replace('JSON parse error, ', ''),
  );
}

const strictlyJson = fc.jsonValue({ depthSize: 'small' });

describe('the JSON stream', () => {
  it('parses the same however the bytes are split', () => {
    fc.assert(
      fc.property(
        fc.array(strictlyJson, { maxLength: 4 }),
        fc.array(fc.nat({ max: 400 }), { maxLength: 12 }),
        (values, cuts) => {
          const bytes = Buffer.from(values.map((value) => `${JSON.stringify([value])} `).join(''));
          const at = [...cuts.map((cut) => cut % (bytes.length + 1)), 0, bytes.length];
          at.sort((left, right) => left - right);
          const pieces = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
          expect(feed(pieces)).toEqual(feed([bytes]));
          expect(feed(pieces)).toHaveLength(values.length);
        },
      ),
    );
  });

  it('agrees with JSON.parse on every JSON value', () => {
    fc.assert(
      fc.property(strictlyJson, (value) => {
        const parsed = parseJson(JSON.stringify([value]));
        expect(JSON.parse(writeJson(parsed))).toEqual(JSON.parse(JSON.stringify([value])));
      }),
    );
  });

  it('recovers from any garbage at a 0xFF and a control byte', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (garbage) => {
        const messages = feed([garbage, Uint8Array.of(0xff, 0x01), '{"after": 1}']);
        const last = messages.at(-1);
        expect(last).toMatchObject({ ok: true, value: { after: 1 } });
      }),
    );
  });

  it('keeps every digit of 64-bit integers', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }), (integer) => {
        const parsed = parseJson(String(integer));
        expect(BigInt(parsed as number | bigint)).toBe(integer);
        expect(writeJson(parsed)).toBe(String(integer));
      }),
    );
  });

  it('makes a double of what is written as one or is beyond 64 bits', () => {
    expect(parseJson('1.0')).toEqual(new JsonDouble(1));
    expect(parseJson('1e5')).toEqual(new JsonDouble(100_000));
    expect(parseJson('18446744073709551616')).toEqual(new JsonDouble(2 ** 64));
    expect(parseJson('-9223372036854775809')).toEqual(new JsonDouble(-(2 ** 63)));
    expect(parseJson('-0')).toBe(0);
  });

  it('accepts single-quoted strings and their escapes', () => {
    expect(outcome(`{'a': 'it\\'s "x"'}`)).toEqual([{ a: `it's "x"` }]);
  });

  it('treats __proto__ as a member like any other', () => {
    const [message] = feed(['{"__proto__": {"polluted": true}}']);
    const value = message?.ok === true ? message.value : null;
    expect(Object.keys(value as object)).toEqual(['__proto__']);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it('keeps the spelling of an id', () => {
    const ids = ['1.0', '1e999', '18446744073709551616', '{"a": [1, -0.50]}', 'null'];
    for (const id of ids) {
      const [message] = feed([`{"x": {"id": 5}, "id":${id.replaceAll(' ', '')}}`]);
      expect(message).toMatchObject({ ok: true, idText: id });
    }
    expect(feed([`{'id': 'é'}`])[0]).toMatchObject({ idText: '"\\u00E9"' });
    expect(feed(['{"x": {"id": 5}}'])[0]).toMatchObject({ idText: null });
  });
});

describe('a broken message', () => {
  it.each([
    ['[01]', ["stray '01'", 'expecting value']],
    ['[-]', ["stray '-]'"]],
    ['[1.]', ["stray '1.]'"]],
    ['[tru]', ["invalid keyword 'tru'"]],
    ['["a\\qb"]', ['invalid escape sequence in string']],
    ['["\\u12"]', ['\\u12"] is not a valid Unicode character']],
    ['["\\ud800"]', ['\\ud800 is not a valid Unicode character']],
    ['[1,]', ['expecting value']],
    ['[1 2]', ['expected separator in list']],
    ['{"a":1 "b":2}', ['expected separator in dict']],
    ['{"a" 1}', ['missing : in object pair']],
    ['{1:2}', ['key is not a string in object']],
    ['{"a":1,"a":2}', ['duplicate key']],
    ['["tab\tin"]', ["stray '\"'", 'expecting value']],
    ["['tab\tin']", ["stray '''", 'expecting value']],
    ['@ "a" 12 [1]', ["stray '@'", [1]]],
    ['@ \n [1]', ["stray '@'", [1]]],
    ['}[1]', ['expecting value', [1]]],
    [':', ['expecting value']],
  ])('%j gives the errors clients expect and then goes on', (text, expected) => {
    const got = outcome(text, '[2]');
    expect(got.at(-1)).toEqual([2]);
    const wording = expected.map((item) =>
      typeof item === 'string' && item.startsWith('\\u12')
        ? expect.stringContaining('\\u12"')
        : item,
    );
    expect(got.slice(0, -1)).toEqual(wording);
  });

  it('that ends too early says so', () => {
    for (const text of ['{"a": 1', '[1', '[', '{"a"', '{"a":']) {
      expect(() => parseJson(text)).toThrow('JSON parse error, premature EOI');
    }
    expect(() => parseJson('')).toThrow('Expecting a JSON value');
  });

  it('with bytes that are no UTF-8 is refused', () => {
    const bad = (bytes: readonly number[]): Uint8Array =>
      Uint8Array.of(0x5b, 0x22, ...bytes, 0x22, 0x5d);
    expect(outcome(bad([0xc3, 0x28]))).toEqual(['invalid UTF-8 sequence in string']);
    expect(outcome(bad([0xed, 0xa0, 0x80]))).toEqual(['invalid UTF-8 sequence in string']);
    expect(outcome(bad([0xf0, 0x9f, 0x98, 0x80]))).toEqual([['😀']]);
    expect(outcome(bad([0x61, 0xc0, 0x80, 0x62]))).toEqual([['a\0b']]);
    expect(outcome(bad([0xc0, 0x80, 0xff]))[0]).toMatch('stray');
    expect(outcome(bad([0xc0, 0x80, 0x80]))).toEqual(['invalid UTF-8 sequence in string']);
  });

  it('with code points that are no characters is refused, however they are spelt', () => {
    for (const text of ['\uffff', '\ufffe', '\ufdd0', '\ufdef', '\u{1fffe}', '\u{10ffff}']) {
      expect(outcome(`["a${text}"]`)).toEqual(['invalid UTF-8 sequence in string']);
      const escaped = quoteJson(text).slice(1, -1);
      expect(outcome(`["a${escaped}"]`)).toEqual([`${escaped} is not a valid Unicode character`]);
    }
    for (const text of ['\ufffd', '\ufdcf', '\ufdf0', '\u{1fffd}', '\u{10fffd}']) {
      expect(outcome(`["a${text}"]`, `["a${quoteJson(text).slice(1, -1)}"]`)).toEqual([
        [`a${text}`],
        [`a${text}`],
      ]);
    }
  });

  it('is bounded in depth, and 1,024 levels are accepted', () => {
    expect(outcome('['.repeat(1024) + ']'.repeat(1024))).toHaveLength(1);
    const [first] = outcome('['.repeat(1025));
    expect(first).toBe('JSON nesting depth limit exceeded');
  });

  it('is bounded in tokens and bytes, however it arrives', () => {
    const limits = { depth: 16, tokens: 100, messageBytes: 1000 };
    const many = feed([`[${'1,'.repeat(200)}`], limits);
    expect(many[0]).toEqual({ ok: false, error: 'JSON token count limit exceeded' });
    const pieces = Array.from({ length: 50 }, () => 'x'.repeat(50));
    const long = feed(['"', ...pieces], limits);
    expect(long[0]).toEqual({ ok: false, error: 'JSON token size limit exceeded' });
  });
});

describe('a flood of broken JSON', () => {
  it('gives one error for each broken message and then goes on', () => {
    const limits = { depth: 16, tokens: 100, messageBytes: 999 };
    const messages = feed([`[${'1,'.repeat(200)}`], limits);
    expect(messages.filter(({ ok }) => !ok).length).toBeGreaterThan(90);
    const mistake = 'expecting value';
    const answers = [mistake, mistake, mistake, mistake, 1, mistake];
    expect(outcome('}', ']', ':', ',', '1', '}')).toEqual(answers);
    for (const text of ['[1 1]', '{1:1}', '{"a":1,"a":2}', '[tru]']) {
      expect(() => parseJson(text)).toThrow(JsonSyntaxError);
    }
  });

  it('looks at each byte of a hostile message a bounded number of times', () => {
    const hostile = (count: number): readonly string[] => [
      `[${'1,'.repeat(count)}`,
      '{"a":'.repeat(count),
      '['.repeat(count),
      `"${'a'.repeat(count)}`,
      `[${'9'.repeat(count)}]`,
      `"${'\\u0041'.repeat(count)}"`,
      '\u00ff'.repeat(count),
    ];
    for (const text of hostile(5000)) {
      expect(bytesLookedAt(text, 1)).toBeLessThanOrEqual(4 * text.length);
      expect(bytesLookedAt(text, 997)).toBeLessThanOrEqual(4 * text.length);
    }
  });
});

/** Reads of single bytes of the input while it is cut into tokens. */
function bytesLookedAt(text: string, pieceBytes: number): number {
  let reads = 0;
  const stream = new JsonStream(() => undefined);
  const bytes = Buffer.from(text, 'latin1');
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const piece = Uint8Array.from(bytes.subarray(at, at + pieceBytes));
    const counted = new Proxy(piece, {
      get(target, name) {
        if (typeof name === 'string' && /^\d+$/.test(name)) reads += 1;
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        return (...given: unknown[]): unknown => {
          const result: unknown = Reflect.apply(value, target, given);
          if (name === 'subarray') reads += (result as Uint8Array).length;
          return result;
        };
      },
    });
    stream.feed(counted);
  }
  return reads;
}

describe('the JSON writer', () => {
  it('escapes everything outside printable ASCII', () => {
    expect(writeJson('é😀\u007f\u0001/\n')).toBe('"\\u00E9\\uD83D\\uDE00\\u007F\\u0001/\\n"');
  });

  it('spaces members and leaves undefined ones out', () => {
    const value = { return: {}, list: [1, 2n ** 63n], skip: undefined, id: new RawJson('1.0') };
    expect(writeJson(value)).toBe('{"return": {}, "list": [1, 9223372036854775808], "id": 1.0}');
  });

  it('indents by four spaces when pretty', () => {
    const lines = ['{', '    "a": [', '    ],', '    "b": {', '        "c": 2', '    }', '}'];
    expect(writeJson({ a: [], b: { c: 2 } }, { pretty: true })).toBe(lines.join('\n'));
  });
});
