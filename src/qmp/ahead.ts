// SPDX-License-Identifier: Apache-2.0
// What commands do before their turn comes, which may be minutes off: a command that drains a node
// waits for the keys that a job at work on it derives, and every other waits behind that one.

import type { CommandArguments } from '../api/index.js';
import type { Engine } from '../engine/index.js';
import type { EngineCommand } from './handlers.js';

/** True where that was all there is to do. */
type Ahead<N extends EngineCommand> = (engine: Engine, args: CommandArguments<N>) => boolean;

const AHEAD: { readonly [N in 'job-cancel' | 'quit']: Ahead<N> } = {
  'job-cancel': ({ jobs, closing }, { id }) => !closing && jobs.get(id)?.cancelAtWork() === true,
  quit(engine) {
    engine.giveUpDerivations();
    return false;
  },
};

const byName = new Map(Object.entries(AHEAD)) as ReadonlyMap<
  string,
  (engine: Engine, args: unknown) => boolean
>;

/** `args` were validated. True where the command is done by that. */
export function doneAhead(engine: Engine, command: string, args: unknown): boolean {
  return byName.get(command)?.(engine, args) === true;
}
