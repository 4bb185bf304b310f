// SPDX-License-Identifier: Apache-2.0
// What a finished request prints: the bytes it moved, the rate, or one line for machines.

import type { GivenWords } from './command.js';
import { amountText, digitsOf, durationText } from './numbers.js';

export interface Finished {
  readonly verb: 'read' | 'wrote' | 'discard';
  readonly offset: number;
  readonly length: number;
  readonly milliseconds: number;
}

/** `timing` false leaves out whatever differs from run to run. */
export function reportText(
  { verb, offset, length, milliseconds }: Finished,
  given: GivenWords,
  timing: boolean,
): string {
  if (given.has('q')) return '';
  // Below what the clock can tell it would be for ever.
  const seconds = Math.max(milliseconds, 0.001) / 1000;
  if (given.has('C')) {
    if (!timing) return `${length},1\n`;
    const rates = [length / seconds, 1 / seconds].map((rate) => rate.toFixed(3)).join(',');
    return `${length},1,${durationText(seconds, true)},${rates}\n`;
  }
  const bytes = `${verb} ${length}/${length} bytes at offset ${digitsOf(offset)}\n`;
  if (!timing) return `${bytes}${amountText(length)}, 1 ops\n`;
  const rates = `${amountText(length / seconds)}/sec and ${(1 / seconds).toFixed(4)} ops/sec`;
  return `${bytes}${amountText(length)}, 1 ops; ${durationText(seconds, false)} (${rates})\n`;
}

const DUMP_BYTES = 16;

/** Sixteen bytes a line, in hexadecimal and as letters and digits; in pieces of bounded size. */
export function* dumpTexts(bytes: Uint8Array, offset: number): Iterable<string> {
  const linesTogether = 1024;
  let lines: string[] = [];
  for (let at = 0; at < bytes.length; at += DUMP_BYTES) {
    lines.push(dumpLine(bytes.subarray(at, at + DUMP_BYTES), offset + at));
    if (lines.length < linesTogether) continue;
    yield lines.join('');
    lines = [];
  }
  if (lines.length > 0) yield lines.join('');
}

function dumpLine(bytes: Uint8Array, offset: number): string {
  let numbers = '';
  let characters = '';
  for (const byte of bytes) {
    numbers += `${byte.toString(16).padStart(2, '0')} `;
    const character = String.fromCharCode(byte);
    characters += /[0-9A-Za-z]/.test(character) ? character : '.';
  }
  return `${offset.toString(16).padStart(8, '0')}:  ${numbers} ${characters}\n`;
}
