// SPDX-License-Identifier: Apache-2.0
// Copies a whole view into a target with several batches in flight: what `convert` does.
//
// Long zero ranges cost one request each, never a scan. Nothing is flushed here.
import { COPY_LIMITS, toBlockError } from '../../base/index.js';
import { viewStatus } from './chain.js';
import { RateLimiter } from './rate-limit.js';
/** Null when everything was copied, else the first failure; nothing is in flight afterwards. */
export async function copyImage(engine, clock, options) {
    const session = engine.open(options);
    const length = options.length ?? options.source.node.length;
    const window = Math.min(options.inFlight ?? engine.lanes.width * 2, COPY_LIMITS.batchesPerJob);
    const limiter = new RateLimiter(clock);
    limiter.setSpeed(options.speed ?? 0);
    const inFlight = new Set();
    let failure = null;
    let done = 0;
    const steps = new StepPlanner(options, length);
    const start = (step) => {
        const running = runStep(session, step).then((result) => {
            failure ??= result;
            done += step.length;
            inFlight.delete(running);
            if (result === null)
                options.onProgress?.(done);
        });
        inFlight.add(running);
    };
    for (let offset = 0; offset < length && failure === null;) {
        if (options.cancelled?.() === true) {
            session.cancel();
            break;
        }
        if (inFlight.size >= window) {
            await Promise.race(inFlight);
            continue;
        }
        const delay = limiter.delayMs();
        if (delay > 0) {
            await new Promise((resolve) => void clock.after(delay, resolve));
        }
        try {
            const step = await steps.next(offset, limiter.sliceBytes);
            if (!step.zero)
                limiter.charge(step.length);
            start(step);
            offset += step.length;
        }
        catch (error) {
            failure = { side: 'source', error: toBlockError(error) };
        }
        await yieldToLoop();
    }
    await Promise.all(inFlight);
    return failure;
}
async function runStep(session, step) {
    return step.zero
        ? session.zero(step.offset, step.length)
        : session.copy(step.offset, step.length);
}
/**
 * Cuts the view into steps: zeroes as far as they go, data in whole batches, however short the
 * runs are that a node tells of (a compressed cluster is one of its own).
 */
class StepPlanner {
    #spec;
    #length;
    /** Up to here the view is known to hold data, or zeroes too short for a step of their own. */
    #dataUntil = 0;
    constructor(spec, length) {
        this.#spec = spec;
        this.#length = length;
    }
    async next(offset, sliceBytes) {
        const { unit, compress } = this.#spec;
        if (offset >= this.#dataUntil) {
            const zeroes = await this.#zeroesAt(offset);
            if (zeroes > 0)
                return { offset, length: zeroes, zero: true };
        }
        const most = compress === true ? COPY_LIMITS.compressedBatchBytes : COPY_LIMITS.batchBytes;
        const limit = Math.min(this.#length - offset, batchBytes(unit, sliceBytes, most));
        while (this.#dataUntil < offset + limit) {
            const zeroes = await this.#zeroesAt(this.#dataUntil);
            if (zeroes >= COPY_LIMITS.batchMinBytes)
                break;
            this.#dataUntil += zeroes;
        }
        return { offset, length: Math.min(limit, this.#dataUntil - offset), zero: false };
    }
    /** Whole units of zeroes at `offset`; 0 when there is data, which is then known. */
    async #zeroesAt(offset) {
        const { unit, source } = this.#spec;
        const left = this.#length - offset;
        let length = 0;
        while (length < left) {
            const asked = Math.min(left - length, COPY_LIMITS.zeroRangeBytes);
            const status = await viewStatus(source.node, offset + length, asked);
            const whole = length + status.length >= left ? left : floorTo(length + status.length, unit);
            if (!status.zero) {
                if (length === 0)
                    this.#dataUntil = offset + Math.max(unit, whole);
                break;
            }
            length += status.length;
        }
        const zeroes = length >= left ? left : floorTo(length, unit);
        if (zeroes === 0) {
            const end = Math.min(this.#length, offset + unit);
            this.#dataUntil = Math.max(this.#dataUntil, end);
        }
        return zeroes;
    }
}
/** Bytes of one batch: a slice of quota at most, whole units, at least one. */
export function batchBytes(unit, sliceBytes, limit = Infinity) {
    const bytes = Math.min(COPY_LIMITS.batchBytes, sliceBytes, limit);
    return Math.max(unit, floorTo(bytes, unit));
}
function floorTo(value, unit) {
    return Math.floor(value / unit) * unit;
}
/** Lets timers and sockets have their turn. */
export function yieldToLoop() {
    return new Promise((resolve) => {
        setImmediate(resolve);
    });
}
