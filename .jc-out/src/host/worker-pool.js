// SPDX-License-Identifier: Apache-2.0
// Worker threads for bulk work: a thin wrapper over piscina, which is loaded at the first use.
//
// A task is one bounded batch. It is never given an AbortSignal, because aborting ends its thread;
// cancelling is a flag that the task reads. Idle threads do not keep the process alive.
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { COPY_LIMITS } from '../base/index.js';
/** Tasks handed to a thread at once; they run one after the other as long as they block. */
export const TASKS_PER_THREAD = 2;
export function createWorkerPool(options) {
    const wanted = options.threads ?? availableParallelism();
    const threads = Math.max(1, Math.min(wanted, COPY_LIMITS.laneMax));
    const filename = fileURLToPath(builtScript(options.script));
    let started = null;
    const start = () => (started ??= startThreads(filename, threads));
    return {
        threads,
        async run(task, { name = 'default' } = {}) {
            const piscina = await start();
            return (await piscina.run(task, { name }));
        },
        async warmUp() {
            await loadAll(await start(), threads);
        },
        async close() {
            if (started === null)
                return;
            const piscina = await started;
            // Ending a thread that is still loading its modules aborts the whole process.
            await loadAll(piscina, threads);
            await piscina.close();
        },
    };
}
/** Resolves when every thread has loaded the script, or cannot. */
async function loadAll(piscina, threads) {
    const tasks = Array.from({ length: threads * TASKS_PER_THREAD });
    await Promise.allSettled(tasks.map(() => piscina.run(null, { name: 'warmUp' })));
}
async function startThreads(filename, threads) {
    const { Piscina: PiscinaPool } = await import('piscina');
    const piscina = new PiscinaPool({
        filename,
        minThreads: threads,
        maxThreads: threads,
        recordTiming: false,
        // A thread finds its next task at once, without waiting for the main thread's answer.
        concurrentTasksPerWorker: TASKS_PER_THREAD,
    });
    // The failure of a thread rejects the tasks that it was given; that is where it is handled.
    piscina.on('error', () => undefined);
    return piscina;
}
/** Threads load JavaScript: a source file run directly is mapped to its build. */
function builtScript(script) {
    if (!script.pathname.endsWith('.ts'))
        return script;
    const at = script.pathname.lastIndexOf('/src/');
    const built = new URL(script.href);
    built.pathname = `${script.pathname.slice(0, at)}/dist/${script.pathname.slice(at + 5, -3)}.js`;
    return built;
}
