// SPDX-License-Identifier: Apache-2.0
// Amounts, times, dumps and words of `io` commands as the reference prints and reads them.
import { expect, test } from 'vitest';

import type { Command } from '../../../src/cli/io/command.js';
import { GivenWords, wordCountMistake } from '../../../src/cli/io/command.js';
import { amountText, durationText, patternOf, sizeOf } from '../../../src/cli/io/numbers.js';
import { dumpTexts } from '../../../src/cli/io/report.js';

test('amounts have at most three decimals, exact halves going to the even digit', () => {
  const amounts = [0, 1, 1023, 1024, 1025, 1856, 1857, 192.5 * 1024, 2 ** 30 + 1, 3 * 2 ** 50];
  expect(amounts.map(amountText)).toEqual([
    '0 bytes', '1 bytes', '1023 bytes', '1 KiB', '1.001 KiB', '1.812 KiB', '1.813 KiB',
    '192.500 KiB', '1 GiB', '3 PiB',
  ]);
});

test('times are seconds up to a minute, then hours, minutes and seconds', () => {
  expect(durationText(0.259, false)).toBe('00.25 sec');
  expect(durationText(59.5, false)).toBe('59.50 sec');
  expect(durationText(62.07, false)).toBe('0:01:02.07');
  expect(durationText(3661, false)).toBe('1:01:01.00');
  expect(durationText(0.5, true)).toBe('0:00:00.50');
});

test('pattern bytes are read as C reads whole numbers', () => {
  expect(['7', '0x7', '010', '255'].map(patternOf)).toEqual([7, 7, 8, 255]);
  for (const text of ['256', '-1', '', '08', 'x', '1k']) {
    expect(() => patternOf(text)).toThrow(`${text} is not a valid pattern byte`);
  }
});

test('sizes beyond any offset and sizes that are none are refused differently', () => {
  expect(sizeOf('1.5k')).toBe(1536);
  expect(() => sizeOf('9E')).toThrow('argument too large -- 9E');
  expect(() => sizeOf('-1')).toThrow('non-numeric argument');
});

test('a dump shows letters and digits, and a dot for all else', () => {
  const bytes = new TextEncoder().encode('Abc 9! and more than one line');
  expect([...dumpTexts(bytes, 0x1f0)].join('')).toBe(
    '000001f0:  41 62 63 20 39 21 20 61 6e 64 20 6d 6f 72 65 20  Abc.9..and.more.\n' +
      '00000200:  74 68 61 6e 20 6f 6e 65 20 6c 69 6e 65  than.one.line\n',
  );
});

const SAMPLE: Command = {
  name: 'sample',
  alias: 's',
  usage: '[-ab] [-c value] off',
  about: 'stands for a command',
  words: [1, null],
  flags: [
    { letter: 'a', about: '' },
    { letter: 'b', about: '' },
    { letter: 'c', value: 'value', about: '' },
  ],
  run: () => undefined,
};

const given = (...words: string[]): GivenWords => new GivenWords(SAMPLE, 's', words);

test('options are read in groups, joined, after operands and up to --', () => {
  const words = given('-ab', '1', '-c5', '-c', '6', '--', '-a');
  expect(words.read([0, null])).toEqual(['1', '-a']);
  expect([words.has('a'), words.has('b'), words.value('c'), words.count('c')]).toEqual([
    true, true, '6', 2,
  ]);
});

test('mistakes in options are told under the name that was used', () => {
  expect(() => given('-x').read([0, null])).toThrow("s: invalid option -- 'x'");
  expect(() => given('-c').read([0, null])).toThrow("s: option requires an argument -- 'c'");
  expect(() => given('1', '2').read([1, 1])).toThrow();
});

test('the number of words is refused with what is expected', () => {
  const mistake = (words: Command['words'], count: number): string | null =>
    wordCountMistake({ ...SAMPLE, words }, 's', count);
  expect(mistake([1, null], 0)).toBe('bad argument count 0 to s, expected at least 1 arguments');
  expect(mistake([0, 0], 2)).toBe('bad argument count 2 to s, expected 0 arguments');
  expect(mistake([1, 3], 4)).toBe('bad argument count 4 to s, expected between 1 and 3 arguments');
  expect(mistake([1, 3], 3)).toBeNull();
});
