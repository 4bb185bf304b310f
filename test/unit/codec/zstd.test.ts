// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { CODEC_LIMITS, SeededRandom } from '../../../src/base/index.js';
import { loadZstd, unzstdCluster, zstdCluster } from '../../../src/codec/index.js';

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

beforeAll(async () => loadZstd());

/** A frame of raw blocks whose header does not tell its content size. */
function rawFrame(content: Uint8Array, windowDescriptor = 0x30, cut = 1000): Uint8Array {
  const parts: Uint8Array[] = [Uint8Array.from([...MAGIC, 0, windowDescriptor])];
  for (let at = 0; at < content.length || at === 0; at += cut) {
    const block = content.subarray(at, at + cut);
    const header = (block.length << 3) | (at + cut >= content.length ? 1 : 0);
    parts.push(Uint8Array.from([header & 0xff, (header >>> 8) & 0xff, header >>> 16]), block);
  }
  return Buffer.concat(parts);
}

function packed(input: Uint8Array): Uint8Array {
  const bytes = zstdCluster(input, Infinity);
  if (bytes === null) throw new Error('there is no limit');
  return bytes;
}

describe('zstd clusters', () => {
  it('come back after another bundle of the program began to use the codec', async () => {
    const input = new Uint8Array(20_000).fill(7);
    const before = packed(input);
    vi.resetModules();
    const other = await import('../../../src/codec/index.js');
    await other.loadZstd();
    // What compiles WebAssembly ends in turns of its own.
    for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
    expect(other.zstdCluster(input, Infinity)).toEqual(packed(input));
    for (const stored of [before, packed(input)]) {
      expect(unzstdCluster(stored, input.length)).toEqual(input);
    }
  });

  it('come back as they were, from one frame or several, with any bytes behind', () => {
    const piece = fc.record({
      seed: fc.nat(),
      length: fc.integer({ min: 0, max: 20_000 }),
      kind: fc.constantFrom('packed', 'raw', 'skipped'),
    });
    const rest = fc.uint8Array({ maxLength: 600 });
    fc.assert(
      fc.property(fc.array(piece, { minLength: 1, maxLength: 4 }), rest, (pieces, behind) => {
        const stored: Uint8Array[] = [];
        const whole: Uint8Array[] = [];
        for (const { seed, length, kind } of pieces) {
          const bytes = new Uint8Array(length).fill(seed & 0xff);
          new SeededRandom(seed).fill(bytes.subarray(0, length >>> 1));
          if (kind === 'skipped') {
            stored.push(Uint8Array.from([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]));
            continue;
          }
          stored.push(kind === 'raw' ? rawFrame(bytes) : packed(bytes));
          whole.push(bytes);
        }
        const input = Buffer.concat([...stored, behind]);
        const expected = Buffer.concat(whole);
        expect(Buffer.compare(unzstdCluster(input, expected.length), expected)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it('are given up when they take more than allowed', () => {
    const input = new Uint8Array(65_536);
    new SeededRandom(1).fill(input);
    expect(zstdCluster(input, input.length - 1)).toBe(null);
    expect(zstdCluster(new Uint8Array(65_536), 200)).not.toBe(null);
  });

  it('that end early, anywhere, are corrupt', () => {
    const input = new Uint8Array(3000);
    new SeededRandom(3).fill(input.subarray(0, 1500));
    for (const frame of [packed(input), rawFrame(input)]) {
      for (let end = 0; end < frame.length; end += end < 20 ? 1 : 97) {
        const attempt = (): unknown => unzstdCluster(frame.subarray(0, end), input.length);
        expect(attempt, `${end} of ${frame.length}`).toThrow('Compressed cluster is damaged: it');
      }
    }
  });

  it('that give another amount of bytes are corrupt', () => {
    const input = new Uint8Array(4096).fill(7);
    const corrupt = expect.objectContaining({ kind: 'corrupt-image' });
    for (const frame of [packed(input), rawFrame(input)]) {
      expect(() => unzstdCluster(frame, 4095)).toThrow(corrupt);
      expect(() => unzstdCluster(frame, 4097)).toThrow(corrupt);
    }
  });

  it('cannot be bombs, nor ask for large windows, dictionaries or unknown blocks', () => {
    const bomb = packed(new Uint8Array(16 * 1024 * 1024));
    expect(() => unzstdCluster(bomb, 65_536)).toThrow('it gives more than 65536 bytes');
    // The same without a content size: zeroes by run-length blocks.
    const rle = [...MAGIC, 0, 0x58];
    for (let block = 0; block < 200; block += 1) rle.push(0x02, 0x00, 0x10, 0);
    rle.push(0x03, 0x00, 0x10, 0);
    expect(() => unzstdCluster(Uint8Array.from(rle), 65_536)).toThrow('is damaged');

    const input = new Uint8Array(2048).fill(1);
    const largest = (Math.log2(CODEC_LIMITS.zstdWindowBytes) - 10) << 3;
    expect(Buffer.compare(unzstdCluster(rawFrame(input, largest), 2048), input)).toBe(0);
    const wide = rawFrame(input, largest + 1);
    expect(() => unzstdCluster(wide, 2048)).toThrow('its window of 9437184 bytes is too large');
    const keyed = Uint8Array.from([...MAGIC, 1, 0x30, 9, 1, 0, 0]);
    expect(() => unzstdCluster(keyed, 2048)).toThrow('it needs a dictionary');
    const strange = Uint8Array.from([...MAGIC, 0, 0x30, 7, 0, 0]);
    expect(() => unzstdCluster(strange, 2048)).toThrow('a block of an unknown type');
    const reserved = Uint8Array.from([...MAGIC, 8, 0x30, 1, 0, 0]);
    expect(() => unzstdCluster(reserved, 2048)).toThrow('a reserved bit');
    expect(() => unzstdCluster(new Uint8Array(64), 2048)).toThrow('there is no zstd frame');
  });

  it('of random bytes behind a header never give anything but a cluster or corruption', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 300 }), (noise) => {
        const input = Uint8Array.from([...MAGIC, 0x20, 200, ...noise]);
        const frame = packed(new Uint8Array(noise.length * 7).map((_, at) => noise[at % 5] ?? 0));
        frame.set(noise.subarray(0, 4), Math.max(6, frame.length - 4));
        for (const bytes of [input, frame]) {
          try {
            expect(unzstdCluster(bytes, 200)).toHaveLength(200);
          } catch (error) {
            expect(error).toMatchObject({ kind: 'corrupt-image' });
          }
        }
      }),
    );
  });
});
