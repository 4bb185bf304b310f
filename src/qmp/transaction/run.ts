// SPDX-License-Identifier: Apache-2.0
// A transaction: all actions are prepared in order; then all are committed in order, or what was
// prepared is undone in reverse, and the first error is the only one that is told.
//
// Nobody sends requests to the nodes of the actions meanwhile, so all of it is one point in time
// for their users. Every node stands still for a moment first, as clients see from their jobs.

import type { ActionName, CommandArguments } from '../../api/index.js';
import { BlockError } from '../../base/index.js';
import type { DrainedSection, Node } from '../../block/index.js';
import type { Engine } from '../../engine/index.js';
import { JobTransaction } from '../../jobs/index.js';
import type { ActionContext, ActionFamily, PreparedAction } from './action.js';
import { bitmapActions } from './bitmap-actions.js';
import { jobActions } from './job-actions.js';
import { snapshotActions } from './snapshot-actions.js';

type Action = CommandArguments<'transaction'>['actions'][number];

const actionsByName: ActionFamily<ActionName> = {
  abort: () => {
    throw new BlockError('invalid-state', 'Transaction aborted using Abort action');
  },
  ...bitmapActions,
  ...jobActions,
  ...snapshotActions,
};

/** Actions that can end together with others, and the one that does nothing. */
const GROUPABLE: ReadonlySet<ActionName> = new Set(['abort', 'blockdev-backup', 'drive-backup']);

/** Throws the error of the first action that fails, with nothing changed but files made. */
export async function runTransaction(
  engine: Engine,
  actions: readonly Action[],
  completion: 'individual' | 'grouped',
): Promise<void> {
  const grouped = completion === 'grouped';
  const context: ActionContext = { engine, jobs: grouped ? new JobTransaction() : undefined };
  const sections = await standStill(engine, actions);
  const prepared: PreparedAction[] = [];
  try {
    try {
      for (const action of actions) {
        if (grouped) requireGroupable(action.type);
        prepared.push(await prepare(context, action));
      }
    } catch (error) {
      await finish(prepared.reverse().map((action) => action.abort?.bind(action)));
      throw error;
    }
    await finish(prepared.map((action) => action.commit?.bind(action)));
  } finally {
    for (const section of sections) section.end();
  }
  // Jobs of a group end from the newest to the oldest.
  await finish(prepared.reverse().map((action) => action.afterwards?.bind(action)));
}

/** A command that is an action as well: everything stands still for it as for a transaction. */
export function runAction(engine: Engine, action: Action): Promise<void> {
  return runTransaction(engine, [action], 'individual');
}

function requireGroupable(type: ActionName): void {
  if (GROUPABLE.has(type)) return;
  throw new BlockError(
    'unsupported',
    `Action '${type}' does not support Transaction property completion-mode = grouped`,
  );
}

/** The data are those of the action's own type: the union's validation has seen to it. */
function prepare(
  context: ActionContext,
  { type, data }: Action,
): Promise<PreparedAction> | PreparedAction {
  const handler = actionsByName[type] as (
    context: ActionContext,
    data: unknown,
  ) => Promise<PreparedAction> | PreparedAction;
  return handler(context, data);
}

/** Every step is done, also when one before it has failed: it is too late for errors. */
async function finish(steps: readonly (PreparedAction['commit'] | undefined)[]): Promise<void> {
  for (const step of steps) {
    try {
      await step?.();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }
}

/** Actions that change bitmaps only need no section of their own. */
async function standStill(engine: Engine, actions: readonly Action[]): Promise<DrainedSection[]> {
  const { graph } = engine;
  if (actions.every(({ type }) => type === 'abort' || type in bitmapActions)) {
    return [await graph.drainAll()];
  }
  await graph.standStill();
  const sections: DrainedSection[] = [];
  for (const action of actions) {
    const node = nodeOf(engine, action);
    if (node !== null) sections.push(await graph.drain([node]));
  }
  return sections;
}

/** The node whose users must not write between this action and the next; null: none is found. */
function nodeOf({ graph }: Engine, { type, data }: Action): Node | null {
  if (type === 'blockdev-backup' && graph.find(data.target) === null) return null;
  const named = data as Readonly<Record<string, unknown>>;
  for (const member of ['node', 'device', 'node-name']) {
    const name = named[member];
    const node = typeof name === 'string' ? graph.find(name) : null;
    if (node !== null) return node;
  }
  return null;
}
