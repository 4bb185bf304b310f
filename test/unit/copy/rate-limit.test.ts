// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COPY_LIMITS, ManualClock } from '../../../src/base/index.js';
import { batchBytes, RateLimiter } from '../../../src/block/copy/index.js';

/** Dispatches as a job does for `ms` milliseconds and gives the bytes charged. */
function dispatchFor(clock: ManualClock, limiter: RateLimiter, ms: number, unit = 65_536): number {
  const end = clock.now() + ms;
  let bytes = 0;
  while (clock.now() < end) {
    const delay = limiter.delayMs();
    if (delay > 0) {
      clock.advance(Math.min(delay, end - clock.now()));
      continue;
    }
    const batch = batchBytes(unit, limiter.sliceBytes);
    limiter.charge(batch);
    bytes += batch;
  }
  return bytes;
}

describe('rate limiter', () => {
  it('is within 5 % of the wanted speed over 10 s', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2 ** 20, max: 2 ** 32 }), (speed) => {
        const clock = new ManualClock();
        const limiter = new RateLimiter(clock);
        limiter.setSpeed(speed);
        const rate = dispatchFor(clock, limiter, 10_000) / 10;
        expect(Math.abs(rate - speed) / speed).toBeLessThan(0.05);
      }),
      { numRuns: 50 },
    );
  });

  it('never delays without a limit', () => {
    const limiter = new RateLimiter(new ManualClock());
    limiter.charge(2 ** 40);
    expect(limiter.delayMs()).toBe(0);
    expect(limiter.sliceBytes).toBe(Infinity);
  });

  it('a new speed is in force after one slice at most', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter(clock);
    limiter.setSpeed(1024);
    limiter.charge(2 ** 30);
    expect(limiter.delayMs()).toBeGreaterThan(1e6);
    limiter.setSpeed(2 ** 20);
    expect(limiter.delayMs()).toBeLessThanOrEqual(100);
  });

  it('idle time is not saved up', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter(clock);
    limiter.setSpeed(10 * 2 ** 20);
    clock.advance(60_000);
    const bytes = dispatchFor(clock, limiter, 1000);
    expect(bytes).toBeLessThanOrEqual(12 * 2 ** 20);
  });

  it('a batch is one slice of quota at most, one unit at least', () => {
    expect(batchBytes(65_536, 3 * 65_536 + 1)).toBe(3 * 65_536);
    expect(batchBytes(65_536, 10)).toBe(65_536);
    expect(batchBytes(65_536, Infinity)).toBe(COPY_LIMITS.batchBytes);
    expect(batchBytes(2 ** 22, Infinity)).toBe(2 ** 22);
  });
});
