// SPDX-License-Identifier: Apache-2.0
// Option words in all their spellings.
import { expect, test } from 'vitest';

import { OptionError, readOptions } from '../../../src/cli/getopt.js';
import type { OptionSpec } from '../../../src/cli/getopt.js';

const SPECS: readonly OptionSpec[] = [
  { name: 'quiet', short: 'q' },
  { name: 'progress', short: 'p', long: 'progress' },
  { name: 'format', short: 'f', argument: true },
  { name: 'output', long: 'output', argument: true },
  { name: 'offset', long: 'offset', argument: true },
  { name: 'salvage', long: 'salvage', unsupported: true },
];

function read(...args: string[]): { options: string[]; operands: string[] } {
  const options: string[] = [];
  const operands = readOptions(args, SPECS, (name, value) => options.push(`${name}=${value}`));
  return { options, operands };
}

function mistake(...args: string[]): [string, string] {
  try {
    read(...args);
  } catch (error) {
    if (error instanceof OptionError) return [error.mistake, error.word];
  }
  throw new Error('no mistake was found');
}

test('short options may be grouped, the last with its value joined or apart', () => {
  const options = ['quiet=', 'progress=', 'format=raw'];
  expect(read('-qpfraw', 'x')).toEqual({ options, operands: ['x'] });
  expect(read('-qpf', 'raw', 'x')).toEqual({ options, operands: ['x'] });
});

test('long options take a value joined or apart, and any unique beginning', () => {
  for (const args of [['--output=json'], ['--output', 'json'], ['--ou=json']]) {
    expect(read(...args).options).toEqual(['output=json']);
  }
  expect(mistake('--o=json')).toEqual(['unrecognized', '--o=json']);
});

test('options may follow operands until two dashes end them', () => {
  expect(read('a', '-q', 'b', '--', '-p')).toEqual({
    options: ['quiet='],
    operands: ['a', 'b', '-p'],
  });
});

test('a single dash is an operand', () => {
  expect(read('-').operands).toEqual(['-']);
});

test('mistakes name the word', () => {
  expect(mistake('-qZ')).toEqual(['unrecognized', '-qZ']);
  expect(mistake('--what')).toEqual(['unrecognized', '--what']);
  expect(mistake('--progress=3')).toEqual(['unrecognized', '--progress=3']);
  expect(mistake('-f')).toEqual(['missing-argument', '-f']);
  expect(mistake('--salvage')).toEqual(['unsupported', '--salvage']);
});
