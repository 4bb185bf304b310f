// SPDX-License-Identifier: Apache-2.0
// Runs lane tasks on threads: plain copies in the addon, on the host's own threads; everything
// else, and without the addon all, on worker threads. A batch with a file that has no descriptor,
// and every batch once threads cannot be started or have died, runs on this thread instead:
// slower, with the same results.
import { createWorkerPool, nativeAddon } from '../../host/index.js';
import { InProcessRunner } from './in-process-lanes.js';
import { isPlain, runNatively } from './native-lanes.js';
/**
 * Plain batches after which threads are worth their start (256 MiB): until then this thread, whose
 * transfers run in the host's pool anyway, is as fast. Work for the processor wants them at once.
 */
const WARM_UP_AFTER = 64;
/** Moving fewer plain bytes costs less than telling a thread of them. */
const SMALL_BYTES = 65_536;
export class ThreadRunner {
    #pool;
    #inProcess = new InProcessRunner();
    #batches = 0;
    #ready = false;
    #warmUp = null;
    #smallBytes;
    #addon;
    /** What runs in the addon now. */
    #native = new Set();
    /** Plain batches of fewer than `smallBytes` bytes run on this thread. */
    constructor(pool, smallBytes = SMALL_BYTES, addon = nativeAddon()) {
        this.#pool = pool;
        this.#smallBytes = smallBytes;
        this.#addon = addon;
    }
    static start(threads, smallBytes = SMALL_BYTES, addon = nativeAddon()) {
        const pool = createWorkerPool({ script: workerScript(), threads });
        return new ThreadRunner(pool, smallBytes, addon);
    }
    async run(batch) {
        const descriptors = descriptorsOf(batch);
        if (descriptors === null || plainBytes(batch) < this.#smallBytes) {
            return this.#inProcess.run(batch);
        }
        if (this.#addon !== null && isPlain(batch.task)) {
            return this.#runNatively(this.#addon, { task: batch.task, descriptors });
        }
        this.#batches += 1;
        if (this.#batches > WARM_UP_AFTER || isHeavy(batch))
            void this.warmUp();
        if (!this.#ready)
            return this.#inProcess.run(batch);
        const message = { task: batch.task, descriptors };
        try {
            return await this.#pool.run(message);
        }
        catch {
            // A thread ended in the middle. Every step may be done again; from here on it is done here.
            this.#ready = false;
            return this.#inProcess.run(batch);
        }
    }
    async close() {
        await Promise.allSettled(this.#native);
        await this.#pool.close();
    }
    async #runNatively(addon, message) {
        const running = runNatively(addon, message);
        this.#native.add(running);
        try {
            return await running;
        }
        finally {
            this.#native.delete(running);
        }
    }
    /** Starting takes longer than many batches: nobody has to wait for it. */
    warmUp() {
        this.#warmUp ??= this.#start();
        return this.#warmUp;
    }
    async #start() {
        const probe = {
            task: { steps: [], slab: null, cancel: new Int32Array(new SharedArrayBuffer(4)) },
            descriptors: [],
        };
        try {
            await this.#pool.run(probe);
            this.#ready = true;
        }
        catch {
            // No threads here: this thread goes on doing the work.
            this.#ready = false;
        }
    }
}
/** Bytes of the batch; Infinity when there is work for the processor. */
function plainBytes(batch) {
    let bytes = 0;
    for (const { length } of batch.task.steps)
        bytes += length;
    return isHeavy(batch) ? Infinity : bytes;
}
/** Deflates or inflates. */
function isHeavy(batch) {
    return batch.task.steps.some(({ deflate, parts, target }) => {
        const others = target.kind === 'compare' ? target.parts : [];
        return deflate || [parts, others].some((each) => each.some(isCompressed));
    });
}
function isCompressed(part) {
    return part.kind === 'compressed';
}
function descriptorsOf(batch) {
    const descriptors = [];
    for (const { descriptor } of batch.files) {
        if (descriptor === null)
            return null;
        descriptors.push(descriptor);
    }
    return descriptors;
}
function workerScript() {
    const script = new URL('./lane-worker.js', import.meta.url);
    if (import.meta.url.endsWith('.ts'))
        script.pathname = script.pathname.replace(/\.js$/, '.ts');
    return script;
}
