// SPDX-License-Identifier: Apache-2.0
// The list of jobs: unique ids, and lookups worded as the two families of verbs want them.
import { BlockError, JOB_LIMITS } from '../base/index.js';
import { Job } from './job.js';
const JOB_ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;
export class JobRegistry {
    graph;
    engine;
    #options;
    #jobs = new Map();
    constructor(options) {
        this.#options = options;
        this.graph = options.graph;
        this.engine = options.engine;
    }
    driver(name) {
        return this.#options.driver(name);
    }
    get(id) {
        return this.#jobs.get(id) ?? null;
    }
    /** In order of creation. */
    list() {
        return [...this.#jobs.values()];
    }
    listBlockJobs() {
        return this.list().filter((job) => job.blockJob);
    }
    /** For job-* verbs: class GenericError. */
    require(id) {
        const job = this.#jobs.get(id);
        if (job === undefined)
            throw new BlockError('not-found', 'Job not found');
        return job;
    }
    /** For block-job-* verbs: class DeviceNotActive. */
    requireBlockJob(id) {
        const job = this.#jobs.get(id);
        if (job === undefined || !job.blockJob) {
            throw new BlockError('device-not-active', `Block job '${id}' not found`);
        }
        return job;
    }
    /** Throws unless `id` may name a new job. */
    requireFreeId(id) {
        if (!JOB_ID.test(id))
            throw new BlockError('invalid-option', `Invalid job ID '${id}'`);
        if (this.#jobs.has(id)) {
            throw new BlockError('exists', `Job ID '${id}' already in use`);
        }
    }
    create(setup) {
        this.requireFreeId(setup.id);
        const job = new Job(setup, {
            clock: this.graph.clock,
            emit: (event) => this.#options.emit(event),
            forget: (forgotten) => this.#forget(forgotten),
        });
        this.#jobs.set(job.id, job);
        return job;
    }
    /** For commands: a node by name, worded as the reference does for a device argument. */
    node(name, argument = 'device') {
        const node = this.graph.find(name);
        if (node !== null)
            return node;
        const device = argument === 'device' ? name : '';
        throw new BlockError('not-found', `Cannot find device='${device}' nor node-name='${name}'`);
    }
    /** A node that nothing stands on: no other node, and no job. */
    rootNode(device) {
        const node = this.node(device);
        const isStood = ({ parent }) => parent.node !== null || parent.job !== undefined;
        if (![...node.parents].some(isStood))
            return node;
        throw new BlockError('invalid-state', 'Need a root block node');
    }
    /**
     * The way out of the program: holds every job and cancels them, the newest first, one after the
     * other as long as each ends in a moment; then waits for the end of all. One that hangs in a
     * request keeps no other from its end.
     */
    async cancelAll() {
        const jobs = this.list().filter(({ status }) => status !== 'concluded');
        for (const job of jobs)
            job.quiesce();
        const ends = [];
        for (const job of jobs.toReversed()) {
            const end = Promise.all([job.cancelForExit(), job.ended]);
            ends.push(end);
            await this.#waitAMoment(end);
        }
        await Promise.all(ends);
    }
    async #waitAMoment(end) {
        await new Promise((resolve) => {
            const disarm = this.graph.clock.after(JOB_LIMITS.exitMomentMs, resolve);
            const over = () => {
                disarm();
                resolve();
            };
            end.then(over, over);
        });
    }
    #forget(job) {
        this.#jobs.delete(job.id);
    }
}
