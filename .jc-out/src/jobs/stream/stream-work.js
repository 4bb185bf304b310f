// SPDX-License-Identifier: Apache-2.0
// The stream job at work: what lies between top and base (exclusive) is copied into top while
// guests go on writing; then top is linked to base.
//
// Order of safety: copied data and its metadata are flushed at the end of run() and again in
// prepare(), then the header's link is rewritten and durable, then the graph follows. A failed
// header write leaves chain and guest as they were, and what was copied reads the same.
import { BlockError, COPY_LIMITS, must, Permission, toBlockError } from '../../base/index.js';
import { UNNAMED_USER } from '../../block/index.js';
import { CopyOnRead, layerStatus, skipFilters } from '../../block/copy/index.js';
import { CopyLoop } from '../copy-loop.js';
import { DueWalk } from '../due-walk.js';
import { detachAll, entered, insertJobFilter, jobUser, letGo } from '../start.js';
/** Where an overlay tells no cluster size. */
const DEFAULT_UNIT = 65_536;
/** Filters hold nothing that could be streamed. */
export function storingLayers(layers) {
    return layers.filter(({ filtered }) => filtered === null).length;
}
export class StreamWork {
    #registry;
    #plan;
    #unit;
    #copier;
    #filter = null;
    #backend = null;
    #reader = null;
    /** Edges that keep writers away from the layers being copied, until the job is dismissed. */
    #guards = [];
    #loop = null;
    #unfreeze = null;
    #speed = 0;
    #wasReadOnly = false;
    constructor(registry, plan) {
        this.#registry = registry;
        this.#plan = plan;
        const top = skipFilters(plan.top);
        this.#unit = top.info.clusterSize ?? DEFAULT_UNIT;
        this.#copier = new CopyOnRead({
            overlay: { node: top },
            base: () => this.#base,
            unit: this.#unit,
        });
    }
    /** What lies below the last layer: a filter may have come between, or a node may be another. */
    get #base() {
        return this.#lastLayer.filtered ?? this.#lastLayer.backing;
    }
    get #lastLayer() {
        return must(this.#plan.layers.at(-1), 'the top is a layer');
    }
    get #empty() {
        return storingLayers(this.#plan.layers) === 1;
    }
    /** Until clean() the top may be written to. */
    async makeWritable() {
        await this.#registry.graph.setReadOnly(this.#plan.top, false);
        this.#wasReadOnly = true;
    }
    /** Also freezes the chain; on failure everything is as before. */
    async insertFilter(name) {
        const { graph } = this.#registry;
        const { top } = this.#plan;
        const internal = { copyOnRead: this.#copier };
        try {
            this.#unfreeze = graph.freezeChain(top, this.#lastLayer, 'stream');
        }
        catch (error) {
            // There the filter keeps the chain, and cannot be made.
            const { kind, message, context } = toBlockError(error);
            throw new BlockError(kind, `Could not create node: ${message}`, context);
        }
        try {
            this.#filter = await insertJobFilter(this.#registry, {
                driver: 'copy-on-read',
                name,
                below: top,
                internal,
                explained: true,
            });
        }
        catch (error) {
            await this.clean();
            throw error;
        }
    }
    async attach(job) {
        const filter = must(this.#filter, 'the filter is in place');
        const { graph } = this.#registry;
        const reading = Permission.consistentRead | Permission.writeUnchanged;
        const guarded = reading | Permission.write;
        const backend = await graph.attach(filter, jobUser(job, 'main node'), {
            taken: Permission.none,
            shared: Permission.all,
        });
        this.#backend = backend;
        const reader = { taken: Permission.consistentRead, shared: guarded };
        this.#reader = await graph.attach(filter, UNNAMED_USER, reader);
        for (const layer of this.#plan.layers) {
            const isTop = layer === this.#plan.top;
            const user = jobUser(job, isTop ? 'active node' : 'intermediate node');
            const shared = isTop ? guarded : reading;
            this.#guards.push(await graph.attach(layer, user, { taken: Permission.none, shared }));
        }
        backend.onQuiesce((quiesced) => {
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
        if (this.#empty)
            return;
        const { engine, graph } = this.#registry;
        const top = skipFilters(this.#plan.top);
        job.setTotal(top.length);
        const session = engine.open({
            source: { node: must(top.backing, 'there is something to stream') },
            target: { node: top },
            unit: this.#unit,
            zeroGranularity: this.#unit,
            fill: (offset, length) => this.#copier.fill(offset, length),
        });
        const walk = new DueWalk({
            job,
            length: top.length,
            unit: this.#unit,
            retries: this.#plan.onError !== 'ignore',
            statusAt: (offset, end) => this.#statusAt(offset, end),
            copy: async (offset, length) => asRead(await session.copy(offset, length)),
        });
        this.#loop = new CopyLoop({
            clock: graph.clock,
            backend: must(this.#backend, 'the job is attached'),
            unit: this.#unit,
            window: COPY_LIMITS.batchesPerJob,
            maxBatch: COPY_LIMITS.batchMaxBytes,
            onSourceError: this.#plan.onError,
            onTargetError: this.#plan.onError,
            next: (limit) => walk.next(limit),
        });
        this.#loop.setSpeed(this.#speed);
        await this.#loop.run(job);
        job.progressTo(top.length);
        await must(this.#backend, 'the job is attached').flush();
    }
    async prepare() {
        const link = this.#link();
        if (link === undefined)
            return;
        const top = skipFilters(this.#plan.top);
        // A reopen reads the header that this writes.
        await entered(must(this.#backend, 'the job is attached'), async () => {
            await top.flush();
            await top.changeBacking(link);
        });
        this.#unfreeze?.();
        this.#unfreeze = null;
        await this.#registry.graph.setBacking(top, this.#base);
    }
    async clean() {
        this.#unfreeze?.();
        this.#unfreeze = null;
        const { graph } = this.#registry;
        const filter = this.#filter;
        const backends = [this.#backend, this.#reader].filter((each) => each !== null);
        this.#backend = null;
        this.#reader = null;
        this.#filter = null;
        const wasReadOnly = this.#wasReadOnly;
        this.#wasReadOnly = false;
        await letGo([
            () => detachAll(backends),
            () => (filter === null ? undefined : graph.removeFilter(filter)),
            () => (wasReadOnly ? this.#makeReadOnly() : undefined),
        ]);
    }
    async dismiss() {
        await detachAll(this.#guards.splice(0));
    }
    /** Whoever writes to the top by now may go on. */
    async #makeReadOnly() {
        await this.#registry.graph.setReadOnly(this.#plan.top, true).catch(() => undefined);
    }
    /** What the header is to say; undefined when it stays as it is. */
    #link() {
        const { backingFile } = this.#plan;
        if (skipFilters(this.#plan.top).backing === null)
            return undefined;
        if (this.#base === null)
            return null;
        const base = skipFilters(this.#base);
        return { file: backingFile ?? base.filename, format: base.driver.name };
    }
    /** Due is what the top lacks and the layers above the base have. */
    async #statusAt(offset, end) {
        const chain = { top: skipFilters(this.#plan.top), base: this.#base };
        const asked = Math.min(COPY_LIMITS.zeroRangeBytes, end - offset);
        const status = await layerStatus(chain, offset, asked);
        return { due: status.where === 'middle', length: status.length };
    }
}
/** Filling an overlay is reading it, whichever side fails: so it is reported. */
function asRead(failure) {
    return failure === null ? null : { ...failure, side: 'source' };
}
