// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import type { CopyFailure, Span } from '../../../src/block/copy/index.js';
import type { CopyWork } from '../../../src/jobs/copy-loop.js';
import { DueWalk } from '../../../src/jobs/due-walk.js';
import type { Job } from '../../../src/jobs/job.js';

const UNIT = 64;
const LENGTH = 64 * UNIT;
const LIMIT = 8 * UNIT;

/** A walk over an image of which every fourth unit is due; `failsAt`: nothing is known there. */
function walkOver(failsAt: Set<number>) {
  const told: number[] = [];
  const copied: Span[] = [];
  const walk = new DueWalk({
    job: { progressTo: (bytes: number) => void told.push(bytes) } as unknown as Job,
    length: LENGTH,
    unit: UNIT,
    retries: true,
    statusAt: (offset) => {
      if (failsAt.has(offset)) return Promise.reject(new BlockError('io', 'no status'));
      const unit = offset / UNIT;
      const due = unit % 4 === 0;
      return Promise.resolve({ due, length: due ? UNIT : (4 - (unit % 4)) * UNIT });
    },
    copy: (spans) => {
      copied.push(...spans);
      return Promise.resolve(null);
    },
  });
  const next = async (): Promise<CopyWork | null> => {
    const work = await walk.next(LIMIT);
    if (work !== null && 'until' in work) {
      await work.until;
      return next();
    }
    return work;
  };
  return { next, told, copied };
}

async function play(work: CopyWork, failure: CopyFailure | null = null): Promise<void> {
  await work.run();
  work.over(failure);
}

it('short runs go together in one batch of the size asked for', async () => {
  const { next, copied, told } = walkOver(new Set());
  const [first, second] = [await next(), await next()];
  expect([first?.cost, second?.cost, await next()]).toEqual([LIMIT, LIMIT, null]);
  if (second !== null) await play(second);
  expect(told).toEqual([0]);
  if (first !== null) await play(first);
  expect(told).toEqual([0, LENGTH]);
  const units = copied.map(({ offset }) => offset / UNIT).sort((left, right) => left - right);
  expect(units).toEqual(Array.from({ length: 16 }, (_, index) => index * 4));
});

it('what was found before a status that fails is copied, then the failure comes', async () => {
  const failing = new Set([8 * UNIT]);
  const { next, copied } = walkOver(failing);
  const work = await next();
  expect(work?.cost).toBe(2 * UNIT);
  await expect(next()).rejects.toThrow('no status');
  failing.clear();
  if (work !== null) await play(work);
  for (let rest = await next(); rest !== null; rest = await next()) await play(rest);
  expect(copied).toHaveLength(16);
});

it('a batch that failed is tried again whole, after all else', async () => {
  const { next, copied, told } = walkOver(new Set());
  const error = new BlockError('io', 'failed');
  const [first, second] = [await next(), await next()];
  if (first !== null) await play(first, { side: 'source', error });
  if (second !== null) await play(second);
  expect(told.at(-1)).toBe(0);
  const again = await next();
  expect(again?.cost).toBe(LIMIT);
  if (again !== null) await play(again);
  expect([told.at(-1), copied.length]).toEqual([LENGTH, 24]);
});

it('progress is told however many batches have failed', async () => {
  const count = 150_000;
  const told: number[] = [];
  const walk = new DueWalk({
    job: { progressTo: (bytes: number) => void told.push(bytes) } as unknown as Job,
    length: count * UNIT,
    unit: UNIT,
    retries: true,
    statusAt: (offset) => Promise.resolve({ due: true, length: count * UNIT - offset }),
    copy: () => Promise.resolve(null),
  });
  const failure: CopyFailure = { side: 'target', error: new BlockError('io', 'failed') };
  for (let batch = 0; batch < count; ) {
    const work = await walk.next(UNIT);
    if (work === null) break;
    if ('until' in work) await work.until;
    else {
      batch += 1;
      work.over(batch === count ? null : failure);
    }
  }
  expect(told).toEqual([0]);
});
