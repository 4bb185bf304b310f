// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CopyBitmap } from '../../../src/block/copy/index.js';

const UNIT = 512;

describe('copy bitmap', () => {
  it('does what a plain array of flags does', () => {
    const change = fc.record({
      set: fc.boolean(),
      first: fc.nat({ max: 70_000 }),
      count: fc.integer({ min: 1, max: 40_000 }),
    });
    fc.assert(
      fc.property(
        fc.array(change, { maxLength: 12 }),
        fc.nat({ max: 70_000 }),
        fc.boolean(),
        (changes, from, dirty) => {
          const units = 70_001;
          const length = units * UNIT - 100;
          const bitmap = new CopyBitmap(length, UNIT, dirty ? 'dirty' : 'clean');
          const model = Array.from({ length: units }, () => dirty);
          for (const { set, first, count } of changes) {
            const bytes = Math.min(count * UNIT, length - first * UNIT);
            if (set) bitmap.set(first * UNIT, bytes);
            else bitmap.clear(first * UNIT, bytes);
            model.fill(set, first, first + count);
          }
          expect(bitmap.dirtyUnits).toBe(model.filter(Boolean).length);
          const next = model.indexOf(true, from);
          expect(bitmap.nextDirty(from * UNIT)).toBe(next < 0 ? -1 : next * UNIT);
          const within = next < 0 || next >= from + 100 ? -1 : next * UNIT;
          expect(bitmap.nextDirty(from * UNIT, (from + 100) * UNIT)).toBe(within);
          if (next < 0) return;
          const end = model.indexOf(false, next);
          const expected = Math.min(length, (end < 0 ? units : end) * UNIT) - next * UNIT;
          expect(bitmap.dirtyRun(next * UNIT, length)).toBe(expected);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('copied piece by piece has nothing left to look through', () => {
    const length = 2 ** 42;
    const bitmap = new CopyBitmap(length, 65_536);
    for (let at = 0; at < length; at += 2 ** 26) bitmap.clear(at, 2 ** 26);
    // At its end a copy looks again after each batch, and so does each write of a guest.
    for (let look = 0; look < 10_000; look += 1) expect(bitmap.nextDirty(0)).toBe(-1);
    expect(bitmap.dirtyUnits).toBe(0);
  });

  it('a run to the end has the last unit, which is shorter than the others', () => {
    const length = 9 * UNIT + 100;
    const bitmap = new CopyBitmap(length, UNIT);
    expect(bitmap.dirtyRun(0, length)).toBe(length);
    expect(bitmap.dirtyRun(0, length - 1)).toBe(9 * UNIT);
  });

  it('a run is one unit at least, even when less is asked for', () => {
    const bitmap = new CopyBitmap(10 * UNIT, UNIT);
    expect(bitmap.dirtyRun(0, 1)).toBe(UNIT);
    expect(bitmap.dirtyRun(9 * UNIT, 100 * UNIT)).toBe(UNIT);
  });

  it('waiters of a range go on when it is released', async () => {
    const { locks } = new CopyBitmap(10 * UNIT, UNIT);
    const release = locks.take(UNIT, UNIT);
    expect(locks.wait(0, UNIT)).toBeUndefined();
    const waiting = locks.wait(0, 2 * UNIT);
    release();
    await waiting;
    expect(locks.count).toBe(0);
    expect(() => locks.take(0, UNIT)()).not.toThrow();
  });
});
