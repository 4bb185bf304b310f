// SPDX-License-Identifier: Apache-2.0
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { DirtyBitmap } from '../../src/block/index.js';

const GRANULARITY = 512;

type Step = readonly ['set' | 'clear' | 'resize', number, number];

/** Units that are dirty, as a plain set. */
class Model {
  units = new Set<number>();
  peak: number;
  constructor(public size: number) {
    this.peak = size;
  }

  apply([kind, offset, length]: Step): void {
    const end = Math.min(offset + length, this.size);
    if (kind === 'resize') {
      const before = this.size;
      this.size = offset;
      const count = Math.ceil(offset / GRANULARITY);
      this.units = new Set([...this.units].filter((unit) => unit < count));
      // What was lost and came back reads otherwise.
      const back = Math.min(offset, this.peak);
      for (let at = before; at < back; at += 1) this.units.add(Math.floor(at / GRANULARITY));
      this.peak = Math.max(this.peak, offset);
    } else if (kind === 'set') {
      for (let at = offset; at < end; at += 1) this.units.add(Math.floor(at / GRANULARITY));
    } else {
      const first = Math.ceil(offset / GRANULARITY);
      for (let unit = first; unit * GRANULARITY < end; unit += 1) {
        if (Math.min((unit + 1) * GRANULARITY, this.size) <= end) this.units.delete(unit);
      }
    }
  }
}

function dirtyUnits(bitmap: DirtyBitmap): number[] {
  const units: number[] = [];
  for (let run = bitmap.nextDirty(0); run !== null; ) {
    expect(run.offset % GRANULARITY).toBe(0);
    for (let at = run.offset; at < run.offset + run.length; at += GRANULARITY) {
      units.push(at / GRANULARITY);
    }
    run = bitmap.nextDirty(run.offset + run.length);
  }
  return units;
}

const SIZE = 40 * 1024;
const steps = fc.array(
  fc.tuple(
    fc.constantFrom('set' as const, 'clear' as const, 'resize' as const),
    fc.nat(SIZE),
    fc.nat(SIZE),
  ),
  { maxLength: 25 },
);

/** Bytes outside the heap that what `make` gives still holds, as soon as they are below `limit`. */
async function arrayBytesGrown(limit: number, make: () => unknown): Promise<number> {
  const collect = (globalThis as { readonly gc?: () => void }).gc ?? exposedCollector();
  collect();
  const before = process.memoryUsage().arrayBuffers;
  const kept = make();
  let grown = Infinity;
  // What was collected is given back beside the program.
  for (let turn = 0; turn < 100 && grown >= limit; turn += 1) {
    collect();
    await setImmediate();
    grown = process.memoryUsage().arrayBuffers - before;
  }
  expect(kept).toBeDefined();
  return grown;
}

function exposedCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

describe('a dirty bitmap', () => {
  it('is a set of units, whatever is set, cleared and resized', () => {
    fc.assert(
      fc.property(steps, fc.nat(SIZE), (sequence, probe) => {
        const bitmap = new DirtyBitmap({ name: 'b', size: SIZE, granularity: GRANULARITY });
        const model = new Model(SIZE);
        for (const step of sequence) {
          const [kind, offset, wanted] = step;
          const length = Math.max(0, Math.min(wanted, model.size - offset));
          if (kind !== 'resize' && length === 0) continue;
          if (kind === 'resize') bitmap.resize(offset);
          else bitmap[kind](offset, length);
          model.apply([kind, offset, length]);
        }
        const units = [...model.units].sort((a, b) => a - b);
        expect(dirtyUnits(bitmap)).toEqual(units);
        expect(bitmap.count).toBe(units.length * GRANULARITY);
        if (probe < model.size) {
          expect(bitmap.isDirty(probe)).toBe(model.units.has(Math.floor(probe / GRANULARITY)));
          const clean = bitmap.nextClean(probe);
          let unit = Math.floor(probe / GRANULARITY);
          while (model.units.has(unit)) unit += 1;
          const expected =
            unit * GRANULARITY >= model.size ? null : Math.max(probe, unit * GRANULARITY);
          expect(clean).toBe(expected);
        }
        const merged = new DirtyBitmap({ name: null, size: model.size, granularity: 1024 });
        merged.merge(bitmap);
        for (const unit of units) expect(merged.isDirty(unit * GRANULARITY)).toBe(true);
        expect(bitmap.copy(null).count).toBe(bitmap.count);
      }),
      { numRuns: 300 },
    );
  });

  it('holds the same bits across pages of its two levels', () => {
    const page = 32_768 * GRANULARITY;
    const size = 3 * page + 512 * 5 + 100;
    const bitmap = new DirtyBitmap({ name: 'b', size, granularity: GRANULARITY });
    bitmap.set(0, size);
    expect(bitmap.nextDirty(0)).toEqual({ offset: 0, length: size });
    bitmap.clear(page - 512, 1024);
    expect(bitmap.nextDirty(0)).toEqual({ offset: 0, length: page - 512 });
    expect(bitmap.nextDirty(page - 512)).toEqual({ offset: page + 512, length: size - page - 512 });
    expect(bitmap.nextClean(page + 512)).toBe(null);
    bitmap.resize(size + 10_000);
    expect(bitmap.nextClean(page + 512)).toBe(3 * page + 512 * 6);
    bitmap.clearAll();
    expect(bitmap.count).toBe(0);
    expect(bitmap.nextDirty(0)).toBe(null);
  });

  it('covers a terabyte at 512 bytes without the memory for its bits', () => {
    const before = process.memoryUsage();
    const bitmap = new DirtyBitmap({ name: 'b', size: 2 ** 40, granularity: 512 });
    bitmap.set(0, 2 ** 40);
    bitmap.clear(2 ** 39, 512);
    expect(bitmap.count).toBe(2 ** 40 - 512);
    expect(bitmap.nextClean(0)).toBe(2 ** 39);
    const after = process.memoryUsage();
    const grown = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
    expect(grown).toBeLessThan(32 * 2 ** 20);
  });

  it('that is filled piece by piece gives the memory for its bits back', async () => {
    const size = 2 ** 36;
    const grown = await arrayBytesGrown(2 ** 20, () => {
      const bitmap = new DirtyBitmap({ name: 'b', size, granularity: GRANULARITY });
      for (let at = 0; at < size; at += 2 ** 20) bitmap.set(at, 2 ** 20);
      expect(bitmap.count).toBe(size);
      expect(bitmap.nextClean(0)).toBe(null);
      return bitmap;
    });
    expect(grown).toBeLessThan(2 ** 20);
  });

  it('follows a node to the largest size and back at once', () => {
    const bitmap = new DirtyBitmap({ name: 'b', size: 2 ** 20, granularity: GRANULARITY });
    bitmap.resize(2 ** 53 - 512);
    bitmap.resize(2 ** 20);
    bitmap.resize(2 ** 53 - 512);
    expect(bitmap.count).toBe(2 ** 53 - 512 - 2 ** 20);
    expect(bitmap.nextDirty(0)).toEqual({ offset: 2 ** 20, length: bitmap.count });
    bitmap.clear(0, 2 ** 53 - 512);
    expect(bitmap.count).toBe(0);
  });

  it('merged has every unit that either has a bit in, whatever their granularities', () => {
    const granularity = fc.constantFrom(512, 1024, 4096, 65_536);
    const ranges = fc.array(fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 3000 })));
    fc.assert(
      fc.property(
        fc.tuple(granularity, granularity),
        fc.tuple(ranges, ranges),
        fc.integer({ min: 1, max: SIZE }),
        (granularities, sets, size) => {
          const [target, source] = granularities.map((each, index) => {
            const bitmap = new DirtyBitmap({ name: 'b', size, granularity: each });
            for (const [offset, length] of sets[index] ?? []) {
              bitmap.set(offset, Math.min(length, size - offset));
            }
            return bitmap;
          }) as [DirtyBitmap, DirtyBitmap];
          const before = target.copy(null);
          target.merge(source);
          for (let at = 0; at < size; at += target.granularity) {
            const length = Math.min(target.granularity, size - at);
            const wanted = before.isDirty(at) || source.nextDirty(at, length) !== null;
            expect(target.isDirty(at)).toBe(wanted);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});
