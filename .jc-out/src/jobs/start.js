// SPDX-License-Identifier: Apache-2.0
// Starting a job, in the order that the reference's events show: its filter is in place, the job is
// created, its speed is set, its edges are attached; a failure from there on throws the job away
// (JSC null) before the error is reported.
import { BlockError, NAME_LIMITS } from '../base/index.js';
import { jobBlock } from '../block/index.js';
export async function prepareWork(registry, work, options) {
    let job;
    try {
        job = registry.create(options.setup);
    }
    catch (error) {
        await abandon(work);
        throw error;
    }
    job.attachWork(work);
    try {
        job.setSpeed(options.speed);
        await work.attach(job);
    }
    catch (error) {
        try {
            await abandon(work);
        }
        finally {
            if (!job.cancelled)
                job.discard();
        }
        throw error;
    }
    // Someone cancelled it between its creation and here: what attach() took is given back.
    if (job.cancelled)
        await abandon(work);
    return {
        job,
        start: () => start(job, options.startsDrained === true),
        async abort() {
            if (job.status !== 'created')
                return;
            await job.cancel();
            await job.ended;
        },
        async throughIfEmpty() {
            if (job.info()['total-progress'] === 0)
                await job.restsOrEnds();
        },
    };
}
async function abandon(work) {
    await letGo([() => work.clean(), () => work.dismiss?.()]);
}
async function start(job, startsDrained) {
    if (job.status !== 'created')
        return;
    if (startsDrained)
        job.quiesce();
    job.start();
    if (!startsDrained)
        return;
    await job.restsOrEnds();
    job.unquiesce();
}
export async function startWork(registry, work, options) {
    const prepared = await prepareWork(registry, work, options);
    await prepared.start();
    return prepared.job;
}
/** The job as a user of one of its nodes, which it keeps from all others; `link` names the edge. */
export function jobUser(job, link) {
    return {
        description: `${job.type} job '${job.id}'`,
        link,
        job: job.id,
        blocks: jobBlock(job.type),
    };
}
const NODE_NAME = /^[A-Za-z][A-Za-z0-9\-._]*$/;
/** Checks a name for the job's filter before anything is changed. */
export function requireFilterName(registry, name, prefix = 'Could not create node: ') {
    if (name === undefined)
        return;
    if (!NODE_NAME.test(name) || name.length > NAME_LIMITS.nodeNameBytes) {
        throw new BlockError('invalid-option', `${prefix}Invalid node-name: '${name}'`);
    }
    if (registry.graph.find(name) !== null) {
        throw new BlockError('exists', `${prefix}Duplicate nodes with node-name='${name}'`);
    }
}
export async function insertJobFilter(registry, filter) {
    const driver = await registry.driver(filter.driver);
    return registry.graph.insertFilter({ ...filter, driver: driver });
}
/** Does work on the backend's node that no drained section may come in between. */
export async function entered(backend, work) {
    const leave = await backend.enter();
    try {
        return await work();
    }
    finally {
        leave();
    }
}
/** Takes all the edges away in this turn, whatever their nodes' files need to be closed. */
export async function detachAll(backends) {
    const detaching = backends.map((backend) => backend.detach());
    await letGo(detaching.map((each) => () => each));
}
/** Runs every step in turn, also when one fails; throws the first failure. */
export async function letGo(steps) {
    const failures = [];
    for (const step of steps) {
        try {
            await step();
        }
        catch (error) {
            failures.push(error);
        }
    }
    if (failures.length > 0)
        throw failures[0];
}
