// SPDX-License-Identifier: Apache-2.0
import { deflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../../src/base/index.js';
import { deflateCluster, inflateCluster, isZero } from '../../../src/codec/index.js';

/** Data that compresses somewhat: runs of repeated and random bytes. */
const cluster = fc
  .record({
    bits: fc.integer({ min: 9, max: 17 }),
    seed: fc.nat(),
    runs: fc.integer({ min: 1, max: 40 }),
  })
  .map(({ bits, seed, runs }) => {
    const bytes = new Uint8Array(2 ** bits);
    const random = new SeededRandom(seed);
    for (let run = 0; run < runs; run += 1) {
      const start = random.below(bytes.length);
      const end = Math.min(bytes.length, start + random.below(4096));
      if (random.chance(0.5)) bytes.fill(random.below(256), start, end);
      else random.fill(bytes.subarray(start, end));
    }
    return bytes;
  });

describe('deflated clusters', () => {
  it('come back as they were, with any bytes behind the stream', () => {
    fc.assert(
      fc.property(cluster, fc.uint8Array({ maxLength: 600 }), (input, rest) => {
        const packed = deflateCluster(input, Infinity);
        if (packed === null) throw new Error('there is no limit');
        const joined = new Uint8Array(packed.length + rest.length);
        joined.set(packed);
        joined.set(rest, packed.length);
        expect(Buffer.compare(inflateCluster(joined, input.length), input)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it('are given up when they take more than allowed', () => {
    const input = new Uint8Array(65_536);
    new SeededRandom(1).fill(input);
    expect(deflateCluster(input, input.length - 1)).toBe(null);
    expect(deflateCluster(new Uint8Array(65_536), 200)).not.toBe(null);
  });

  it('need no window larger than 4 KiB', () => {
    const half = new Uint8Array(8192);
    new SeededRandom(2).fill(half);
    const input = Buffer.concat([half, half]);
    // A reader with a larger window would find the second half in the first.
    expect(deflateRawSync(input).length).toBeLessThan(9000);
    expect(deflateCluster(input, Infinity)?.length).toBeGreaterThan(16_000);
  });

  it('that are damaged, short or larger than a cluster are corrupt', () => {
    const input = new Uint8Array(4096).fill(7);
    const packed = deflateCluster(input, Infinity) ?? new Uint8Array(0);
    const damaged = { kind: 'corrupt-image' };
    const attempt = (bytes: Uint8Array, length: number) => () => inflateCluster(bytes, length);
    expect(attempt(packed, 2048)).toThrow(expect.objectContaining(damaged));
    expect(attempt(packed, 8192)).toThrow('it gives 4096 of 8192 bytes');
    expect(attempt(packed.subarray(0, 4), 4096)).toThrow(expect.objectContaining(damaged));
    expect(attempt(new Uint8Array(100).fill(0xff), 4096)).toThrow(expect.objectContaining(damaged));
    expect(attempt(new Uint8Array(0), 4096)).toThrow(expect.objectContaining(damaged));
  });

  it('cannot be bombs', () => {
    const bomb = deflateRawSync(new Uint8Array(64 * 1024 * 1024), { windowBits: 12 });
    expect(() => inflateCluster(bomb, 65_536)).toThrow('Compressed cluster is damaged');
  });
});

describe('the zero scan', () => {
  it('sees a single byte anywhere', () => {
    const length = fc.integer({ min: 1, max: 200_000 });
    fc.assert(
      fc.property(length, fc.nat(), fc.nat(15), (size, seed, skip) => {
        const bytes = new Uint8Array(size + skip).subarray(skip);
        expect(isZero(bytes)).toBe(true);
        bytes[seed % size] = 1;
        expect(isZero(bytes)).toBe(false);
      }),
    );
  });

  it('calls nothing zero', () => {
    expect(isZero(new Uint8Array(0))).toBe(true);
  });
});
