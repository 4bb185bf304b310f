// SPDX-License-Identifier: Apache-2.0
// Sizes as people and command lines write them: suffixes k M G T P E are powers of 1024.
//
// parseSize accepts what qemu-img accepts (`1.5G`, `64k`, `0x200`, `1e3` for plain bytes is
// refused); formatSize prints three significant digits as its human output does (`193 KiB`,
// `1.5 GiB`), formatSizeExact adds the bytes (`1.5 GiB (1610612736 bytes)`).

import { MAX_OFFSET } from './limits.js';

const SUFFIXES: Readonly<Record<string, number>> = { b: 0, k: 1, m: 2, g: 3, t: 4, p: 5, e: 6 };
const NAMES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

export type ParsedSize =
  | { readonly ok: true; readonly bytes: number }
  | { readonly ok: false; readonly reason: 'syntax' | 'negative' | 'range' };

/**
 * Bytes of `text`; a number without suffix is multiplied by `unit` (1 by default). A fraction is
 * allowed only before a suffix (or a default unit) above bytes and is cut to whole bytes. More than
 * `most` bytes are out of range.
 */
export function parseSize(text: string, unit = 1, most = MAX_OFFSET): ParsedSize {
  const trimmed = text.trimStart();
  if (trimmed.startsWith('-')) return { ok: false, reason: 'negative' };
  const hex = /^\+?(0x[0-9a-f]+)$/i.exec(trimmed);
  if (hex !== null) return bounded(Number(hex[1]) * unit, most);
  const match = /^\+?(\d+)(\.\d*)?([bkmgtpe]?)$/i.exec(trimmed);
  if (match === null) return { ok: false, reason: 'syntax' };
  const [, whole = '', fraction = '', suffix = ''] = match;
  const power = SUFFIXES[suffix.toLowerCase()];
  const multiplier = suffix === '' || power === undefined ? unit : 1024 ** power;
  const part = fraction === '' || fraction === '.' ? 0 : Number(`0${fraction}`);
  if (part !== 0 && multiplier === 1) return { ok: false, reason: 'syntax' };
  return bounded(Number(whole) * multiplier + Math.floor(part * multiplier), most);
}

function bounded(bytes: number, most: number): ParsedSize {
  if (!(bytes <= most)) return { ok: false, reason: 'range' };
  return { ok: true, bytes };
}

/** Three significant digits with a binary unit: `0 B`, `193 KiB`, `1.5 GiB`, `1e+03 KiB`. */
export function formatSize(bytes: number): string {
  let power = 0;
  let value = bytes;
  // The next unit starts at 1000 of this one, so that three digits are always enough.
  while (value >= 1000 && power < NAMES.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${threeDigits(value)} ${NAMES[power] ?? 'B'}`;
}

/** The C format %0.3g. */
function threeDigits(value: number): string {
  if (value === 0) return '0';
  const text = tiesToEven(value, value.toPrecision(3));
  if (text.includes('e')) {
    const [mantissa = '', exponent = ''] = text.split('e');
    const sign = exponent.startsWith('-') ? '-' : '+';
    const digits = exponent.replace(/^[+-]/, '').padStart(2, '0');
    return `${trimZeroes(mantissa)}e${sign}${digits}`;
  }
  return trimZeroes(text);
}

/** Halfway between two texts (192.5) C takes the even one, toPrecision() the upper one. */
function tiesToEven(value: number, upper: string): string {
  const step = value >= 100 ? 1 : value >= 10 ? 0.1 : 0.01;
  const units = value / step;
  if (Math.floor(units) + 0.5 !== units || Math.floor(units) % 2 !== 0) return upper;
  return (Math.floor(units) * step).toPrecision(3);
}

function trimZeroes(text: string): string {
  return text.includes('.') ? text.replace(/0+$/, '').replace(/\.$/, '') : text;
}

export function formatSizeExact(bytes: number): string {
  return `${formatSize(bytes)} (${bytes} bytes)`;
}

/** Control bytes shown as `\xNN`, so that names from images cannot drive a terminal. */
export function escapeControls(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what this is about
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
