// SPDX-License-Identifier: Apache-2.0
// Numbers of `io` commands: sizes with suffixes, pattern bytes, and how amounts and times read.

import { parseSize } from '../../base/index.js';
import { CommandFailure } from './command.js';

/** Largest request: what fits a signed 32-bit integer in whole sectors. */
export const LARGEST_REQUEST = 2_147_483_136;
export const SECTOR = 512;

const UNITS = [' bytes', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB', ' EiB'] as const;
const PATTERN_LIMIT = 255;

/** The largest signed 64-bit number that is exact here. */
const LARGEST_SIZE = 2 ** 63 - 1024;

/** Bytes, which may be more than any image has; throws CommandFailure. */
export function sizeOf(text: string): number {
  const parsed = parseSize(text, 1, LARGEST_SIZE);
  if (parsed.ok) return parsed.bytes;
  if (parsed.reason === 'range') {
    throw new CommandFailure(`Parsing error: argument too large -- ${text}`);
  }
  const what = 'non-numeric argument, or extraneous/unrecognized suffix';
  throw new CommandFailure(`Parsing error: ${what} -- ${text}`);
}

/** The length of one request. */
export function lengthOf(text: string, unless = ''): number {
  const length = sizeOf(text);
  if (length <= LARGEST_REQUEST) return length;
  throw new CommandFailure(`length cannot exceed ${LARGEST_REQUEST}${unless}, given ${text}`);
}

/** Lengths of the buffers of one request. */
export function lengthsOf(texts: readonly string[]): number[] {
  let total = 0;
  return texts.map((text) => {
    const length = sizeOf(text);
    if (length > LARGEST_REQUEST) {
      throw new CommandFailure(`Argument '${text}' exceeds maximum size ${LARGEST_REQUEST}`);
    }
    total += length;
    if (total > LARGEST_REQUEST) {
      const start = 'The total number of bytes exceed the maximum size';
      throw new CommandFailure(`${start} ${LARGEST_REQUEST}`);
    }
    return length;
  });
}

export function requireSectors(name: string, bytes: number): void {
  if (bytes % SECTOR === 0) return;
  throw new CommandFailure(`${bytes} is not a sector-aligned value for '${name}'`);
}

/** As C reads a whole number: decimal, 0x… and 0…; null when it is none. */
export function wholeNumber(text: string): number | null {
  const match = /^\s*([+-]?)(0x[0-9a-f]+|\d+)$/i.exec(text);
  if (match === null) return null;
  const [, sign, digits = ''] = match;
  const isOctal = /^0\d/.test(digits);
  if (isOctal && !/^[0-7]+$/.test(digits)) return null;
  const value = isOctal ? Number.parseInt(digits, 8) : Number(digits);
  return sign === '-' ? -value : value;
}

export function patternOf(text: string): number {
  const value = wholeNumber(text);
  if (value !== null && value >= 0 && value <= PATTERN_LIMIT) return value;
  throw new CommandFailure(`${text} is not a valid pattern byte`);
}

/** All digits, where others would be rounded. */
export function digitsOf(bytes: number): string {
  return Number.isSafeInteger(bytes) ? String(bytes) : BigInt(bytes).toString();
}

/** `1.500 MiB`, `64 KiB`, `512 bytes`: at most three decimals, and none of zeroes. */
export function amountText(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${threeDecimals(value).replace(/\.000$/, '')}${UNITS[power] ?? ''}`;
}

/** Exact halves go to the even digit, as in C; only odd sixteenths are such. */
function threeDecimals(value: number): string {
  const below = Math.floor(value * 1000);
  const isHalf = (value * 16) % 2 === 1;
  return isHalf && below % 2 === 0 ? (below / 1000).toFixed(3) : value.toFixed(3);
}

const two = (value: number): string => String(value).padStart(2, '0');

/** `00.25 sec`, and with minutes or when `fixed` is asked for `0:01:02.25`. */
export function durationText(seconds: number, fixed: boolean): string {
  const whole = Math.floor(seconds);
  const fraction = two(Math.floor((seconds - whole) * 100));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = two(whole % 60);
  if (fixed || whole >= 60) return `${hours}:${two(minutes)}:${rest}.${fraction}`;
  return `${rest}.${fraction} sec`;
}
