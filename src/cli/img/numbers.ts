// SPDX-License-Identifier: Apache-2.0
// Numbers of the command line and of its output: sizes with suffixes, and percentages.

import { MAX_OFFSET, parseSize } from '../../base/index.js';
import { CliError } from '../program.js';

const LARGEST_SIGNED = 2 ** 63;
const LARGEST_SIGNED_TEXT = '9223372036854775807';
const POWERS = 'bkmgtpe';

export interface SizeRange {
  readonly least?: number;
  readonly most?: number;
}

/**
 * Bytes of a size argument; `what` names it in the refusal (`image size`). Sizes beyond 2^53 − 1
 * are refused with that limit, those beyond 2^63 with the reference's.
 */
export function sizeArgument(what: string, text: string, range: SizeRange = {}): number {
  const parsed = parseSize(text);
  const { least = 0, most } = range;
  if (parsed.ok && parsed.bytes >= least && parsed.bytes <= (most ?? Infinity)) {
    return parsed.bytes;
  }
  const isNumber = parsed.ok || parsed.reason === 'range';
  if (isNumber && (most !== undefined || least > 0)) {
    throw new CliError(`Invalid ${what} specified. Must be between ${least} and ${most}.`);
  }
  if (parsed.ok || parsed.reason === 'range') {
    const limit = roughSize(text) >= LARGEST_SIGNED ? LARGEST_SIGNED_TEXT : String(MAX_OFFSET);
    throw new CliError(`Invalid ${what} specified. Must be between 0 and ${limit}.`);
  }
  throw new SuffixError(what);
}

/** Two lines, each with the program's name in front. */
export class SuffixError extends CliError {
  readonly secondLine = 'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.';

  constructor(what: string) {
    super(`Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for`);
  }
}

function roughSize(text: string): number {
  const power = POWERS.indexOf((text.at(-1) ?? '').toLowerCase());
  return Number.parseFloat(text) * (power < 0 ? 1 : 1024 ** power);
}

const SIZE_HINT =
  'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
  'and exabytes, respectively.\n';

/** Bytes of a size that is refused as that of an option is. */
export function parameterSize(name: string, text: string): number {
  const parsed = parseSize(text);
  if (parsed.ok) return parsed.bytes;
  if (parsed.reason === 'range') {
    throw new CliError(`Value '${text}' is out of range for parameter '${name}'`);
  }
  const message = `Parameter '${name}' expects a non-negative number below 2^64`;
  throw new CliError(message, 1, SIZE_HINT);
}

/** A ratio in percent with two decimals as C prints it: exact halves go to the even digit. */
export function percent(part: number, whole: number): string {
  const value = (part * 100) / whole;
  const hundredths = value * 100;
  const below = Math.floor(hundredths);
  const isHalf = hundredths - below === 0.5 && hundredths / 100 === value;
  if (isHalf && below % 2 === 0) return (below / 100).toFixed(2);
  return value.toFixed(2);
}
