// SPDX-License-Identifier: Apache-2.0
// Jobs that end together; a single job is its own transaction.
//
// All members must be WAITING before they become PENDING together; prepare runs on one after the
// other, and the first failure (also of a running member) cancels the others. All this goes from
// the newest to the oldest. No member can succeed any more when the first of a failed transaction
// is concluded, and each is concluded exactly once. Once the end has begun, a cancel comes too late
// and changes nothing.
import { assert, BlockError } from '../base/index.js';
export class JobTransaction {
    /** The newest first: the order in which they end. */
    #jobs = [];
    #ending = null;
    /** The end has begun and cannot be turned any more. */
    get ending() {
        return this.#ending !== null;
    }
    add(job) {
        assert(this.#ending === null, 'the transaction is ending');
        this.#jobs.unshift(job);
    }
    remove(job) {
        const index = this.#jobs.indexOf(job);
        if (index >= 0)
            this.#jobs.splice(index, 1);
    }
    /** A member's work is done well; goes on when it was the last. */
    async jobDone(job) {
        job.becomeWaiting();
        if (this.#jobs.some((member) => member.status !== 'waiting'))
            return;
        for (const member of this.#jobs)
            member.becomePending();
        if (this.#jobs.every((member) => member.autoFinalize))
            await this.finalize();
    }
    /** Resolves when the end that has begun is over, at once if none has. */
    async over() {
        await this.#ending;
    }
    async finalize() {
        this.#ending ??= this.#finalizeAll();
        await this.#ending;
    }
    /** A member has failed (it is ABORTING): cancels the others and concludes all. */
    async settleFailure() {
        this.#ending ??= this.#abortAll();
        await this.#ending;
    }
    async #finalizeAll() {
        for (const job of this.#jobs) {
            try {
                await job.prepare();
            }
            catch (error) {
                if (!(error instanceof BlockError))
                    throw error;
                job.fail(error);
                await this.#abortAll();
                return;
            }
        }
        for (const job of this.#jobs)
            await job.conclude();
    }
    async #abortAll() {
        for (const job of this.#jobs) {
            if (job.status !== 'aborting')
                job.cancelWithOthers();
        }
        for (const job of this.#jobs) {
            if (job.status !== 'aborting')
                job.abortWithOthers();
            await job.aborted;
            await job.conclude();
        }
    }
}
