// SPDX-License-Identifier: Apache-2.0
// Synchronous-first results. A function that returns Eventually<T> gives the plain value when it
// finished inline and a promise only when it has to wait; an inline failure throws. Callers on a
// hot path use settle() so that no promise and no closure is made when none is needed.

export type Eventually<T> = T | Promise<T>;

/** Calls `done` with the result, at once if it is there already. */
export function settle<T, R>(
  result: Eventually<T>,
  done: (value: T) => Eventually<R>,
): Eventually<R> {
  return result instanceof Promise ? result.then(done) : done(result);
}

/**
 * Runs `start` and calls `cleanup` exactly once when it is over, whichever way it ends.
 * `start` may throw inline.
 */
export function settleFinally<T>(start: () => Eventually<T>, cleanup: () => void): Eventually<T> {
  let result: Eventually<T>;
  try {
    result = start();
  } catch (error) {
    cleanup();
    throw error;
  }
  if (result instanceof Promise) return result.finally(cleanup);
  cleanup();
  return result;
}

/** Runs the steps one after another, without a promise as long as each finishes inline. */
export function sequence(
  count: number,
  step: (index: number) => Eventually<void>,
): Eventually<void> {
  for (let index = 0; index < count; index += 1) {
    const result = step(index);
    if (result instanceof Promise) return continueSequence(result, index + 1, count, step);
  }
  return undefined;
}

async function continueSequence(
  pending: Promise<void>,
  from: number,
  count: number,
  step: (index: number) => Eventually<void>,
): Promise<void> {
  await pending;
  for (let index = from; index < count; index += 1) await step(index);
}
