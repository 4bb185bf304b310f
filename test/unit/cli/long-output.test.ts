// SPDX-License-Identifier: Apache-2.0
// What is too long as one text is printed in order, and no faster than it is read.
import { describe, expect, it } from 'vitest';
import { outPieces } from '../../../src/cli/program.js';
import type { Program } from '../../../src/cli/program.js';
import { jsonPieces, writeJson } from '../../../src/wire/index.js';

describe('long output', () => {
  it('waits for its reader after each part', async () => {
    const printed: string[] = [];
    let read = (): void => undefined;
    const program: Program = {
      name: 'test',
      terminal: false,
      out: (text) => void printed.push(text),
      err: () => undefined,
      drained: () => new Promise((resolve) => (read = resolve)),
    };
    const piece = 'x'.repeat(50_000);
    const done = outPieces(program, [piece, piece, piece, piece, 'end']);
    await Promise.resolve();
    expect(printed).toEqual([piece + piece]);
    read();
    await new Promise(setImmediate);
    expect(printed).toHaveLength(2);
    read();
    await done;
    expect(printed.join('')).toBe(`${piece.repeat(4)}end`);
  });

  it('is the JSON text of a value, with any iterable as a list', () => {
    const value = { a: [1, { b: 'x', none: undefined }, [], {}], c: null, d: 'é"', e: [[true]] };
    for (const options of [{}, { pretty: true }]) {
      expect([...jsonPieces(value, options)].join('')).toBe(writeJson(value, options));
      const lazy = { ...value, a: new Set(value.a) };
      expect([...jsonPieces(lazy, options)].join('')).toBe(writeJson(value, options));
    }
  });
});
