// SPDX-License-Identifier: Apache-2.0
// A transaction: all actions are prepared in order; then all are committed in order, or what was
// prepared is undone in reverse, and the first error is the only one that is told.
//
// Nobody sends requests to the nodes of the actions meanwhile, so all of it is one point in time
// for their users. Every node stands still for a moment first, as clients see from their jobs.
import { BlockError } from '../../base/index.js';
import { JobTransaction } from '../../jobs/index.js';
import { bitmapActions } from './bitmap-actions.js';
import { jobActions } from './job-actions.js';
import { snapshotActions } from './snapshot-actions.js';
const actionsByName = {
    abort: () => {
        throw new BlockError('invalid-state', 'Transaction aborted using Abort action');
    },
    ...bitmapActions,
    ...jobActions,
    ...snapshotActions,
};
/** Actions that can end together with others, and the one that does nothing. */
const GROUPABLE = new Set(['abort', 'blockdev-backup', 'drive-backup']);
/** Throws the error of the first action that fails, with nothing changed but files made. */
export async function runTransaction(engine, actions, completion) {
    const grouped = completion === 'grouped';
    const context = { engine, jobs: grouped ? new JobTransaction() : undefined };
    const section = await standStill(engine, actions);
    const prepared = [];
    try {
        try {
            for (const action of actions) {
                if (grouped)
                    requireGroupable(action.type);
                prepared.push(await prepare(context, action));
            }
        }
        catch (error) {
            await finish(prepared.reverse().map((action) => action.abort?.bind(action)));
            throw error;
        }
        await finish(prepared.map((action) => action.commit?.bind(action)));
    }
    finally {
        section.end();
    }
    // Jobs of a group end from the newest to the oldest.
    await finish(prepared.reverse().map((action) => action.afterwards?.bind(action)));
}
/** A command that is an action as well: everything stands still for it as for a transaction. */
export function runAction(engine, action) {
    return runTransaction(engine, [action], 'individual');
}
function requireGroupable(type) {
    if (GROUPABLE.has(type))
        return;
    throw new BlockError('unsupported', `Action '${type}' does not support Transaction property completion-mode = grouped`);
}
/** The data are those of the action's own type: the union's validation has seen to it. */
function prepare(context, { type, data }) {
    const handler = actionsByName[type];
    return handler(context, data);
}
/** Every step is done, also when one before it has failed: it is too late for errors. */
async function finish(steps) {
    for (const step of steps) {
        try {
            await step?.();
        }
        catch (error) {
            if (!(error instanceof BlockError))
                throw error;
        }
    }
}
/** Actions that change bitmaps only need no section of their own. */
async function standStill(engine, actions) {
    const { graph } = engine;
    const all = await graph.drain([...graph.nodes]);
    if (actions.every(({ type }) => type === 'abort' || type in bitmapActions))
        return all;
    all.end();
    return await graph.drain(nodesOf(engine, actions));
}
/** Nodes whose users must not write between one action and the next, those that exist. */
function nodesOf(engine, actions) {
    const nodes = new Set();
    for (const { data } of actions) {
        const named = data;
        for (const member of ['node', 'device', 'node-name']) {
            const name = named[member];
            const node = typeof name === 'string' ? engine.graph.find(name) : null;
            if (node !== null)
                nodes.add(node);
        }
    }
    return [...nodes];
}
