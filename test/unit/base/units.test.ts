// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { escapeControls, formatSize, formatSizeExact, parseSize } from '../../../src/base/index.js';

describe('sizes as text', () => {
  it('are printed as qemu-img prints them', () => {
    const known: readonly (readonly [number, string])[] = [
      [0, '0 B'],
      [1, '1 B'],
      [512, '512 B'],
      [999, '999 B'],
      [1000, '0.977 KiB'],
      [1024, '1 KiB'],
      [197_120, '192 KiB'],
      [197_632, '193 KiB'],
      [198_144, '194 KiB'],
      [1_048_575, '1 MiB'],
      [1_048_576, '1 MiB'],
      [1_610_612_736, '1.5 GiB'],
      [1_072_693_248, '0.999 GiB'],
      [2 ** 40, '1 TiB'],
      [Number.MAX_SAFE_INTEGER, '8 PiB'],
    ];
    for (const [bytes, text] of known) expect(formatSize(bytes), String(bytes)).toBe(text);
    expect(formatSizeExact(1_610_612_736)).toBe('1.5 GiB (1610612736 bytes)');
  });

  it('are read with suffixes of 1024', () => {
    const bytes = (text: string, unit?: number): number | string => {
      const parsed = parseSize(text, unit);
      return parsed.ok ? parsed.bytes : parsed.reason;
    };
    expect(bytes('512')).toBe(512);
    expect(bytes('64k')).toBe(65_536);
    expect(bytes('1.5G')).toBe(1_610_612_736);
    expect(bytes('2M')).toBe(2_097_152);
    expect(bytes('1T')).toBe(2 ** 40);
    expect(bytes('100B')).toBe(100);
    expect(bytes('0x200')).toBe(512);
    expect(bytes('10', 1024 * 1024)).toBe(10_485_760);
    expect(bytes('')).toBe('syntax');
    expect(bytes('k')).toBe('syntax');
    expect(bytes('1.5')).toBe('syntax');
    expect(bytes('12x')).toBe('syntax');
    expect(bytes('1e3')).toBe('syntax');
    expect(bytes('-1')).toBe('negative');
    expect(bytes('8E')).toBe('range');
    expect(bytes('99999999999999999999')).toBe('range');
  });
});

describe('control characters', () => {
  it('never reach a terminal', () => {
    expect(escapeControls('a\u001b[31mb\u0000\u009bc\n')).toBe('a\\x1b[31mb\\x00\\x9bc\\x0a');
    expect(escapeControls('naïve name.qcow2')).toBe('naïve name.qcow2');
  });
});
