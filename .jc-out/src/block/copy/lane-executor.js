// SPDX-License-Identifier: Apache-2.0
// Who runs lane tasks: threads on descriptors, or this thread on any host file.
//
// Batches wait in one queue per owner (job) and the owners take turns, so that one busy job does
// not starve another. At most `width` batches run at once. Files of a running batch are held, and
// files that it wrote to are told, whether it went well or not.
import { availableParallelism } from 'node:os';
import { COPY_LIMITS, must, SeededRandom } from '../../base/index.js';
import { TASKS_PER_THREAD } from '../../host/index.js';
import { InProcessRunner } from './in-process-lanes.js';
import { ThreadRunner } from './thread-lanes.js';
/** Turns among owners, bounded width; with a Random the next owner is drawn from it. */
export class FairLanes {
    width;
    #runner;
    #random;
    #queues = new Map();
    #running = 0;
    constructor(runner, width, random = null) {
        this.#runner = runner;
        this.width = width;
        this.#random = random;
    }
    run(batch, owner) {
        return new Promise((resolve, reject) => {
            const queue = this.#queues.get(owner) ?? [];
            queue.push({ batch, resolve, reject });
            this.#queues.set(owner, queue);
            this.#dispatch();
        });
    }
    async warmUp() {
        await this.#runner.warmUp?.();
    }
    close() {
        return this.#runner.close();
    }
    #dispatch() {
        while (this.#running < this.width && this.#queues.size > 0) {
            this.#running += 1;
            void this.#runOne(this.#next());
        }
    }
    #next() {
        const owners = [...this.#queues.keys()];
        const owner = must(owners[this.#random?.below(owners.length) ?? 0], 'an owner waits');
        const queue = must(this.#queues.get(owner), 'the owner has a queue');
        const waiting = must(queue.shift(), 'a queue in the list is not empty');
        // Back to the end of the line, which is what makes the turns fair.
        this.#queues.delete(owner);
        if (queue.length > 0)
            this.#queues.set(owner, queue);
        return waiting;
    }
    async #runOne({ batch, resolve, reject }) {
        const held = [];
        try {
            for (const file of batch.files) {
                file.hold();
                held.push(file);
            }
            resolve(await this.#runner.run(batch));
        }
        catch (error) {
            reject(error);
        }
        finally {
            for (const file of writtenFiles(batch))
                if (held.includes(file))
                    file.noteForeignWrite();
            for (const file of held)
                file.release();
            this.#running -= 1;
            this.#dispatch();
        }
    }
}
function writtenFiles(batch) {
    const written = new Set();
    for (const { target } of batch.task.steps) {
        if (target.kind !== 'file')
            continue;
        written.add(must(batch.files[target.file], 'a step names a file of the batch'));
    }
    return written;
}
/** Lanes on this thread, for any host, in an order drawn from `random`. */
export function inProcessLanes(random, width = 2) {
    return new FairLanes(new InProcessRunner(), width, random);
}
/** Lanes for the host: threads where its files have descriptors, this thread otherwise. */
export function createLanes(host, threads) {
    if (host.name === 'simulated')
        return inProcessLanes(new SeededRandom(host.random.next()));
    const count = Math.min(threads ?? availableParallelism(), COPY_LIMITS.laneMax);
    if (count < 1)
        return inProcessLanes(host.random, 1);
    return new FairLanes(ThreadRunner.start(count), count * TASKS_PER_THREAD);
}
