// SPDX-License-Identifier: Apache-2.0
// What reading and writing commands share: running a request with its time taken, verifying a
// pattern, and printing what came of it.

import type { Eventually } from '../../base/index.js';
import { BlockError } from '../../base/index.js';
import { CommandFailure } from './command.js';
import type { CommandFlag, GivenWords } from './command.js';
import { digitsOf, patternOf } from './numbers.js';
import { dumpTexts, reportText } from './report.js';
import type { Finished } from './report.js';
import { requestFailure } from './shell.js';
import type { Shell } from './shell.js';

export const COUNTS: CommandFlag = { letter: 'C', about: 'print one line of numbers for machines' };
export const QUIET: CommandFlag = { letter: 'q', about: 'print nothing if all went well' };
export const DUMP: CommandFlag = { letter: 'v', about: 'print the bytes that were read' };
export const VERIFY: CommandFlag = {
  letter: 'P',
  value: 'pattern',
  about: 'expect this byte everywhere (0 to 255)',
};
export const FILL: CommandFlag = {
  letter: 'P',
  value: 'pattern',
  about: 'write this byte (0 to 255) instead of 0xcd',
};
export const FUA: CommandFlag = { letter: 'f', about: 'be durable before the request ends' };
export const ZEROES: CommandFlag = { letter: 'z', about: 'write zeroes, not given as bytes' };
export const UNMAP: CommandFlag = { letter: 'u', about: 'with -z: the space may be given back' };
export const INVALID: CommandFlag = {
  letter: 'i',
  about: 'send nothing: stands for a request that is refused',
};

export const DEFAULT_FILL = 0xcd;

/** How requests behave that run beside the commands. */
export const ASYNC_MANUAL: readonly string[] = [
  'Goes on while the commands that follow run, and prints what came of it when it ends;',
  'aio_flush waits for that. The command itself fails only if nothing could be sent.',
];

/** A pattern that is no byte is refused before the operands are looked at. */
export function checkPattern(letter: string, value: string): void {
  if (letter === 'P') patternOf(value);
}

/** With -i nothing is sent, whatever the operands are: says so. */
export function injectsInvalid(
  shell: Shell,
  given: GivenWords,
  kind: 'read' | 'write',
): boolean {
  let invalid = false;
  given.read([0, null], (letter, value) => {
    checkPattern(letter, value);
    if (letter === 'i') invalid = true;
  });
  if (invalid) shell.program.out(`injecting invalid ${kind} request\n`);
  return invalid;
}

export interface Timed extends Omit<Finished, 'milliseconds'> {
  /** What messages call it: `read failed: …`. */
  readonly name: string;
  begin(): Eventually<void>;
  /** The bytes read, for -v. */
  readonly buffer?: Uint8Array;
  /** False when what was read is not what -P expects; prints why. */
  verify?(): boolean;
}

/** Runs the request and waits for it. */
export async function perform(shell: Shell, given: GivenWords, request: Timed): Promise<void> {
  const began = shell.clock.now();
  let ended = began;
  try {
    const result = request.begin();
    if (result === undefined) ended = shell.clock.now();
    await shell.wait(result);
    if (result !== undefined) ended = shell.clock.now();
  } catch (error) {
    throw requestFailure(request.name, error);
  }
  if (!show(shell, given, request, ended - began)) throw new CommandFailure('');
}

/** Runs the request beside the commands that follow. */
export function submit(shell: Shell, given: GivenWords, request: Timed): void {
  const began = shell.clock.now();
  shell.start(
    () => request.begin(),
    (error) => {
      if (error !== null) shell.program.out(`${requestFailure(request.name, error).message}\n`);
      else show(shell, given, request, shell.clock.now() - began);
    },
  );
}

/** False when the pattern was not found. */
function show(shell: Shell, given: GivenWords, request: Timed, milliseconds: number): boolean {
  const isExpected = request.verify?.() ?? true;
  if (!given.has('q') && given.has('v') && request.buffer !== undefined) {
    for (const text of dumpTexts(request.buffer, request.offset)) shell.program.out(text);
  }
  shell.program.out(reportText({ ...request, milliseconds }, given, shell.timing));
  return isExpected;
}

/** Throws before memory is taken for what is not in the file at all. */
export function requireInside(shell: Shell, offset: number, length: number): void {
  const { length: end } = shell.file.node;
  if (offset + length <= end) return;
  throw new BlockError('out-of-range', `${length} bytes at ${offset} go beyond the end (${end})`);
}

export interface PatternRange {
  readonly pattern: number;
  /** Within the buffer. */
  readonly start: number;
  readonly length: number;
}

/** Prints where the pattern was expected in vain. */
export function verifyPattern(
  shell: Shell,
  read: { readonly buffer: Uint8Array; readonly offset: number },
  { pattern, start, length }: PatternRange,
): boolean {
  const range = read.buffer.subarray(start, start + length);
  // All are equal when each equals the one after it, and the first is the pattern.
  const isUniform = Buffer.compare(range.subarray(1), range.subarray(0, -1)) === 0;
  if (range.length === 0 || (range[0] === pattern && isUniform)) return true;
  const where = `at offset ${digitsOf(read.offset + start)}, ${length} bytes`;
  shell.program.out(`Pattern verification failed ${where}\n`);
  return false;
}
