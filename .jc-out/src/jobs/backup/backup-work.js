// SPDX-License-Identifier: Apache-2.0
// The backup job at work: the source as it was when the filter came in goes to the target.
//
// Job and copy-before-write filter share one bitmap, so a unit is copied once, by whoever comes
// first. A unit that is still dirty has not been written since the start, so what was found out
// about it stays true while it is dirty. The target is flushed before run() returns, and before a
// bitmap says of anything that it was copied.
import { COPY_LIMITS, must, Permission, toBlockError } from '../../base/index.js';
import { infoBelow } from '../../block/index.js';
import { backingOf, CopyBitmap, layerStatus, viewStatus, yieldToLoop, } from '../../block/copy/index.js';
import { CopyLoop } from '../copy-loop.js';
import { ScanPace } from '../scan-pace.js';
import { insertJobFilter, jobUser, letGo } from '../start.js';
import { SourceDiscard } from './source-discard.js';
import { SyncBitmap } from './sync-bitmap.js';
/** The job's own edges ask for nothing: filter and blocked operations do the keeping away. */
const NOTHING = { taken: Permission.none, shared: Permission.all };
/** What is discarded changes under all who use the source. */
const DISCARDING = { taken: Permission.write, shared: Permission.all };
export class BackupWork {
    #registry;
    #plan;
    #bitmap;
    #syncBitmap = null;
    /** Units that may be missing in the target, on disk; null: all that were wanted. */
    #missing = null;
    #wanted = null;
    #filter = null;
    #backends = [];
    #loop = null;
    #session = null;
    #discard = null;
    #speed = 0;
    #hasBegun = false;
    #cursor = 0;
    /** Up to here the source is known to hold data. */
    #dataUntil = 0;
    /** Bytes of the units in flight, and of all that are to be copied. */
    #inFlight = 0;
    #total = 0;
    constructor(registry, plan) {
        this.#registry = registry;
        this.#plan = plan;
        const initially = plan.sync === 'bitmap' ? 'clean' : 'dirty';
        this.#bitmap = new CopyBitmap(plan.source.length, plan.unit, initially);
    }
    /**
     * The filter's coming in, with everything drained, is the point in time. The bitmap is frozen
     * with it, for the job `id`.
     */
    async insertFilter(id) {
        const { source, target, filterName, bitmap, sync } = this.#plan;
        const internal = { bitmap: this.#bitmap };
        if (bitmap !== null) {
            this.#syncBitmap = new SyncBitmap(source, bitmap, `job '${id}'`);
            if (sync === 'bitmap')
                this.#syncBitmap.choose(this.#bitmap);
            if (bitmap.mode === 'always')
                this.#wanted = this.#bitmap.clone();
        }
        try {
            this.#filter = await insertJobFilter(this.#registry, {
                driver: 'copy-before-write',
                name: filterName,
                below: source,
                internal,
                children: { target },
                explained: true,
            });
        }
        catch (error) {
            await this.clean();
            throw error;
        }
    }
    async attach(job) {
        const { graph } = this.#registry;
        const { target } = this.#plan;
        const filter = must(this.#filter, 'the filter is in place');
        const onSource = this.#plan.discardsSource ? DISCARDING : NOTHING;
        this.#backends.push(await graph.attach(filter, jobUser(job, 'main node'), onSource));
        this.#backends.push(await graph.attach(target, jobUser(job, 'target'), NOTHING));
        const [backend] = this.#backends;
        backend?.onQuiesce((quiesced) => {
            if (quiesced)
                job.quiesce();
            else
                job.unquiesce();
        });
    }
    setSpeed(bytesPerSecond) {
        this.#speed = bytesPerSecond;
        this.#loop?.setSpeed(bytesPerSecond);
    }
    async run(job) {
        this.#hasBegun = true;
        this.#total = this.#bytesDue;
        job.setTotal(this.#total);
        try {
            await this.#copyAll(job);
        }
        catch (error) {
            await this.#noteMissing();
            throw error;
        }
        finally {
            await this.#discard?.makeRoom();
        }
    }
    commit() {
        this.#syncBitmap?.succeed();
    }
    abort() {
        // Undone with its transaction: nothing has changed.
        if (!this.#hasBegun)
            return this.#syncBitmap?.letGo();
        const missing = this.#missing ?? this.#wanted;
        this.#syncBitmap?.fail(missing ?? this.#bitmap);
    }
    async #copyAll(job) {
        const { plan, target } = { plan: this.#plan, target: this.#target };
        await job.pausePoint();
        if (plan.sync === 'none')
            for (;;)
                await job.rest();
        if (plan.sync === 'top')
            await this.#leaveOutBacking(job);
        const cluster = infoBelow(target.node).clusterSize ?? plan.unit;
        this.#session = this.#registry.engine.open({
            source: this.#source,
            target,
            unit: plan.compress ? cluster : plan.unit,
            zeroGranularity: plan.unit,
            hostCopies: plan.hostCopies,
            compress: plan.compress,
        });
        if (plan.discardsSource) {
            this.#discard = new SourceDiscard({ source: this.#source, target });
        }
        this.#loop = new CopyLoop({
            clock: this.#registry.graph.clock,
            backend: must(this.#backends[0], 'the job is attached'),
            unit: plan.unit,
            window: plan.workers,
            maxBatch: Math.min(plan.maxChunk, COPY_LIMITS.batchMaxBytes),
            onSourceError: plan.onSourceError,
            onTargetError: plan.onTargetError,
            retryIgnored: true,
            next: (limit) => this.#next(job, limit),
        });
        this.#loop.setSpeed(this.#speed);
        await this.#loop.run(job);
        job.progressTo(this.#total);
        await must(this.#backends[1], 'the job is attached').flush();
        this.#missing = new CopyBitmap(this.#bitmap.length, plan.unit, 'clean');
    }
    /** What was copied before a failure counts once it is on disk. */
    async #noteMissing() {
        if (this.#wanted === null && this.#discard === null)
            return;
        const missing = this.#bitmap.uncopied();
        try {
            await this.#target.node.flush();
            this.#missing = missing;
        }
        catch (error) {
            toBlockError(error);
        }
    }
    async clean() {
        const { graph } = this.#registry;
        const filter = this.#filter;
        this.#filter = null;
        this.#syncBitmap?.letGo();
        const { target, ownsTarget } = this.#plan;
        await letGo([
            ...this.#backends.splice(0).map((backend) => () => backend.detach()),
            () => (filter === null ? undefined : graph.removeFilter(filter)),
            () => (ownsTarget ? graph.close(target) : undefined),
        ]);
    }
    /** Whole units, as they are counted. */
    #unitBytes(length) {
        return Math.ceil(length / this.#plan.unit) * this.#plan.unit;
    }
    get #bytesDue() {
        return this.#bitmap.dirtyUnits * this.#plan.unit + this.#inFlight;
    }
    get #source() {
        const filter = must(this.#filter, 'the filter is in place');
        return must(filter.children.get('file'), 'the filter has a source');
    }
    get #target() {
        const filter = must(this.#filter, 'the filter is in place');
        return must(filter.children.get('target'), 'the filter has a target');
    }
    async #next(job, limit) {
        const bitmap = this.#bitmap;
        for (;;) {
            const offset = this.#nextDirty();
            if (offset < 0) {
                // A guest's copy that fails gives its units back, so the last of them is waited for.
                const others = this.#inFlight === 0 ? bitmap.locks.wait(0, bitmap.length) : undefined;
                return others === undefined ? null : { until: others };
            }
            const zeroes = await this.#zeroesAt(offset);
            if (!bitmap.isDirty(offset))
                continue;
            if (zeroes > 0)
                return this.#claim(job, { offset, limit: zeroes, zero: true });
            return this.#claim(job, { offset, limit, zero: false });
        }
    }
    #nextDirty() {
        const ahead = this.#bitmap.nextDirty(this.#cursor);
        return ahead >= 0 ? ahead : this.#bitmap.nextDirty(0);
    }
    /** Whole units that only the backing file has do not belong to the backup. */
    async #leaveOutBacking(job) {
        const bitmap = this.#bitmap;
        const pace = new ScanPace();
        for (let offset = 0; offset < bitmap.length;) {
            if (pace.due())
                await yieldToLoop();
            if (job.pauseRequested || job.cancelled)
                await job.pausePoint();
            const left = bitmap.length - offset;
            const top = this.#source.node;
            const chain = { top, base: backingOf(top) };
            const status = await layerStatus(chain, offset, Math.min(left, COPY_LIMITS.zeroRangeBytes));
            const isOwn = status.where === 'top';
            const whole = isOwn ? this.#unitBytes(status.length) : this.#wholeUnits(status.length, left);
            const length = Math.max(whole, this.#plan.unit);
            if (!isOwn && whole > 0)
                this.#leaveOut(job, offset, length);
            offset += length;
        }
    }
    #leaveOut(job, offset, length) {
        const before = this.#bitmap.dirtyUnits;
        this.#bitmap.clear(offset, length);
        this.#total -= (before - this.#bitmap.dirtyUnits) * this.#plan.unit;
        job.setTotal(this.#total);
    }
    /** Bytes of whole units from `offset` that read as zeroes. */
    async #zeroesAt(offset) {
        if (offset < this.#dataUntil)
            return 0;
        const left = this.#bitmap.length - offset;
        const asked = Math.min(left, COPY_LIMITS.zeroRangeBytes);
        const status = await this.#statusAt(offset, asked);
        const whole = this.#wholeUnits(status.length, left);
        if (status.zero && whole > 0)
            return whole;
        this.#dataUntil = offset + Math.max(whole, this.#plan.unit);
        return 0;
    }
    /** Where it cannot be told the bytes are read, and whatever fails is an error of that. */
    async #statusAt(offset, length) {
        try {
            return await viewStatus(this.#source.node, offset, length);
        }
        catch (error) {
            toBlockError(error);
            return { zero: false, length: Math.min(length, this.#plan.unit) };
        }
    }
    #wholeUnits(length, left) {
        return length >= left ? left : length - (length % this.#plan.unit);
    }
    /** The range is held, so what is discarded is what was copied. */
    async #copy(range, zero) {
        const session = must(this.#session, 'the job runs');
        const { offset, length } = range;
        const failure = await (zero ? session.zero(offset, length) : session.copy(offset, length));
        if (failure !== null || this.#discard === null)
            return failure;
        return this.#discard.discard(range);
    }
    #claim(job, wanted) {
        const bitmap = this.#bitmap;
        const { offset, zero } = wanted;
        const length = bitmap.dirtyRun(offset, wanted.limit);
        const release = bitmap.locks.take(offset, length);
        bitmap.clear(offset, length);
        this.#cursor = offset + length;
        const bytes = this.#unitBytes(length);
        this.#inFlight += bytes;
        return {
            offset,
            length,
            cost: zero ? 0 : length,
            run: () => this.#copy({ offset, length }, zero),
            over: (failure) => {
                this.#inFlight -= bytes;
                if (failure !== null)
                    bitmap.set(offset, length);
                release();
                job.progressTo(this.#total - this.#bytesDue);
            },
        };
    }
}
