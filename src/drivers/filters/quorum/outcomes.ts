// SPDX-License-Identifier: Apache-2.0
// One request on every child: started on all of them, ended when each has, none of them lost.

import { BlockError, settle, type Eventually } from '../../../base/index.js';

/** How a request ended on one child: null is well. */
export type Outcome = BlockError | null;

/** A programmer's mistake is thrown on, after all have ended. */
export function onEach<T>(
  children: readonly T[],
  start: (child: T, index: number) => Eventually<void>,
): Eventually<readonly Outcome[]> {
  const outcomes = children.map((child, index) => outcomeOf(() => start(child, index)));
  if (!outcomes.some((outcome) => outcome instanceof Promise)) return checked(outcomes as Ended[]);
  return Promise.all(outcomes).then(checked);
}

/** Like onEach() of one. */
export function onOne(start: () => Eventually<void>): Eventually<Outcome> {
  return settle(onEach([null], start), ([outcome = null]) => outcome);
}

/** What a request ended with; a failure of another kind waits until all have ended. */
type Ended = Outcome | { readonly thrown: unknown };

function outcomeOf(start: () => Eventually<void>): Eventually<Ended> {
  try {
    const result = start();
    return result instanceof Promise ? result.then(() => null, ended) : null;
  } catch (error) {
    return ended(error);
  }
}

function ended(error: unknown): Ended {
  return error instanceof BlockError ? error : { thrown: error };
}

function checked(outcomes: readonly Ended[]): readonly Outcome[] {
  return outcomes.map((outcome) => {
    if (outcome !== null && !(outcome instanceof BlockError)) throw outcome.thrown;
    return outcome;
  });
}
