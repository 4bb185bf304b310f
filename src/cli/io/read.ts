// SPDX-License-Identifier: Apache-2.0
// `read`, `readv` and `aio_read`: bytes of the file into memory, shown or compared on request.

import { CommandFailure, UsageFailure } from './command.js';
import type { Command, GivenWords } from './command.js';
import { lengthOf, lengthsOf, patternOf, requireSectors, sizeOf } from './numbers.js';
import {
  ASYNC_MANUAL,
  checkPattern,
  COUNTS,
  DUMP,
  injectsInvalid,
  INVALID,
  perform,
  QUIET,
  requireInside,
  submit,
  VERIFY,
  verifyPattern,
} from './requests.js';
import type { PatternRange, Timed } from './requests.js';
import type { Shell } from './shell.js';
import { readVmState } from './vm-state.js';

interface ReadRequest {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
  readonly expected: PatternRange | null;
  /** Of the VM state, not of the disk. */
  readonly vmState?: boolean;
}

/** The buffer is made when the request begins: one that cannot be needs none. */
function timedRead(shell: Shell, request: ReadRequest): Timed {
  const { name, offset, length, expected } = request;
  let buffer = new Uint8Array(0);
  return {
    verb: 'read',
    name,
    offset,
    length,
    begin() {
      const isState = request.vmState === true;
      if (!isState) requireInside(shell, offset, length);
      buffer = new Uint8Array(length);
      if (isState) return readVmState(shell, offset, buffer);
      return shell.file.backend.read(offset, buffer);
    },
    get buffer() {
      return buffer;
    },
    verify: () => expected === null || verifyPattern(shell, { buffer, offset }, expected),
  };
}

export const read: Command = {
  name: 'read',
  alias: 'r',
  usage: '[-abCqv] [-P pattern [-s off] [-l len]] off len',
  about: 'reads a number of bytes at a specified offset',
  words: [2, null],
  flags: [
    { letter: 'b', about: 'read the VM state instead of the disk' },
    COUNTS,
    { letter: 'l', value: 'len', about: 'with -P: how many bytes to compare' },
    { letter: 'p', about: 'accepted and ignored' },
    VERIFY,
    QUIET,
    { letter: 's', value: 'off', about: 'with -P: where in the bytes read to begin to compare' },
    DUMP,
  ],
  manual: [
    'Reads in one request; offset and length need no alignment.',
    "'read -v 512 1k' shows 1 KiB from offset 512.",
  ],
  async run(shell, given) {
    let start = 0;
    let compared: number | null = null;
    const operands = given.read([0, null], (letter, value) => {
      checkPattern(letter, value);
      if (letter === 'l') compared = lengthOf(value);
      if (letter === 's') start = sizeOf(value);
    });
    if (operands.length !== 2) throw new UsageFailure();
    const offset = sizeOf(given.operand(0));
    const length = lengthOf(given.operand(1));
    if (!given.has('P') && (given.has('s') || given.has('l'))) throw new UsageFailure();
    const range = { start, length: compared ?? length - start };
    if (range.length < 0 || range.start + range.length > length) {
      throw new CommandFailure('pattern verification range exceeds end of read data');
    }
    if (given.has('b')) {
      requireSectors('offset', offset);
      requireSectors('count', length);
    }
    const expected = expectedPattern(given, range);
    const request = { name: 'read', offset, length, expected, vmState: given.has('b') };
    await perform(shell, given, timedRead(shell, request));
  },
};

function expectedPattern(
  given: GivenWords,
  range: { readonly start: number; readonly length: number },
): PatternRange | null {
  const text = given.value('P');
  return text === undefined ? null : { pattern: patternOf(text), ...range };
}

/** Offset and several lengths, which are one request. */
function vectored(given: GivenWords, name: string): ReadRequest {
  const offset = sizeOf(given.operand(0));
  const length = lengthsOf(given.read([2, null]).slice(1)).reduce((sum, each) => sum + each, 0);
  return { name, offset, length, expected: expectedPattern(given, { start: 0, length }) };
}

export const readv: Command = {
  name: 'readv',
  usage: '[-Cqv] [-P pattern] off len [len..]',
  about: 'reads a number of bytes at a specified offset',
  words: [2, null],
  flags: [COUNTS, VERIFY, DUMP, QUIET],
  manual: [
    'The lengths are those of several buffers of one request.',
    "'readv -v 512 1k 1k' shows 2 KiB from offset 512.",
  ],
  async run(shell, given) {
    given.read([2, null], checkPattern);
    await perform(shell, given, timedRead(shell, vectored(given, 'readv')));
  },
};

export const aioRead: Command = {
  name: 'aio_read',
  usage: '[-Ciqv] [-P pattern] off len [len..]',
  about: 'asynchronously reads a number of bytes',
  words: [2, null],
  flags: [COUNTS, VERIFY, INVALID, DUMP, QUIET],
  manual: ASYNC_MANUAL,
  run(shell, given) {
    if (injectsInvalid(shell, given, 'read')) return;
    given.read([2, null]);
    submit(shell, given, timedRead(shell, vectored(given, 'readv')));
  },
};
