// SPDX-License-Identifier: Apache-2.0
// Work in flight: one that hangs costs nothing more for each of the others that ends.

import { expect, test, vi } from 'vitest';

import { InFlight } from '../../../src/base/index.js';

test('what hangs is listened to once, however many others end meanwhile', async () => {
  const inFlight = new InFlight();
  let end: () => void = () => undefined;
  const stuck = new Promise<void>((resolve) => {
    end = resolve;
  });
  const listened = vi.spyOn(stuck, 'then');
  inFlight.add(stuck);
  for (let i = 0; i < 1_000; i += 1) {
    inFlight.add(Promise.resolve());
    await inFlight.oneEnds();
    expect(inFlight.size).toBe(1);
  }
  expect(listened).toHaveBeenCalledTimes(1);
  end();
  await inFlight.allEnd();
  expect(inFlight.size).toBe(0);
});

test('the first failure is thrown to whoever waits, for all once all have ended', async () => {
  const inFlight = new InFlight();
  let end: () => void = () => undefined;
  inFlight.add(
    new Promise<void>((resolve) => {
      end = resolve;
    }),
  );
  inFlight.add(Promise.reject(new Error('first')));
  inFlight.add(Promise.reject(new Error('second')));
  await expect(inFlight.oneEnds()).rejects.toThrow('first');
  let over = false;
  const all = inFlight.allEnd().finally(() => {
    over = true;
  });
  await Promise.resolve();
  expect(over).toBe(false);
  end();
  await expect(all).rejects.toThrow('first');
  expect(inFlight.size).toBe(0);
});
