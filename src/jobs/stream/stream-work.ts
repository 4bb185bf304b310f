// SPDX-License-Identifier: Apache-2.0
// The stream job at work: what lies between top and base (exclusive) is copied into top while
// guests go on writing; then top is linked to base.
//
// Order of safety: copied data and its metadata are flushed at the end of run() and again in
// prepare(), then the header's link is rewritten and durable, then the graph follows. A failed
// header write leaves chain and guest as they were, and what was copied reads the same.

import { BlockError, COPY_LIMITS, IMAGE_LIMITS, must, Permission } from '../../base/index.js';
import { toBlockError } from '../../base/index.js';
import { UNNAMED_USER } from '../../block/index.js';
import type { BackingLink, Backend, Node } from '../../block/index.js';
import { CopyOnRead, layerStatus, skipFilters } from '../../block/copy/index.js';
import type { CopyFailure, CopyOnReadInternal } from '../../block/copy/index.js';
import { CopyLoop } from '../copy-loop.js';
import { DueWalk } from '../due-walk.js';
import type { DueStatus } from '../due-walk.js';
import type { Job } from '../job.js';
import type { JobWork } from '../job-work.js';
import type { OnError } from '../options.js';
import { detachAll, entered, insertJobFilter, jobUser, letGo, pauseWithNode } from '../start.js';
import type { JobRegistry } from '../registry.js';

export interface StreamPlan {
  readonly top: Node;
  readonly base: Node | null;
  /** From top down to base (exclusive), filters included. */
  readonly layers: readonly Node[];
  readonly backingFile: string | null;
  readonly onError: OnError;
}

/** Where an overlay tells no cluster size. */
const DEFAULT_UNIT = 65_536;

/** Filters hold nothing that could be streamed. */
export function storingLayers(layers: readonly Node[]): number {
  return layers.filter(({ filtered }) => filtered === null).length;
}

export class StreamWork implements JobWork {
  readonly #registry: JobRegistry;
  readonly #plan: StreamPlan;
  readonly #unit: number;
  readonly #copier: CopyOnRead;
  #filter: Node | null = null;
  #backend: Backend | null = null;
  #reader: Backend | null = null;
  /** Edges that keep writers away from the layers being copied, until the job is dismissed. */
  readonly #guards: Backend[] = [];
  #loop: CopyLoop | null = null;
  #unfreeze: (() => void) | null = null;
  #speed = 0;
  #wasReadOnly = false;

  constructor(registry: JobRegistry, plan: StreamPlan) {
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
  get #base(): Node | null {
    return this.#lastLayer.filtered ?? this.#lastLayer.backing;
  }

  get #lastLayer(): Node {
    return must(this.#plan.layers.at(-1), 'the top is a layer');
  }

  get #empty(): boolean {
    return storingLayers(this.#plan.layers) === 1;
  }

  /** Until clean() the top may be written to. */
  async makeWritable(): Promise<void> {
    await this.#registry.graph.setReadOnly(this.#plan.top, false);
    this.#wasReadOnly = true;
  }

  /** Also freezes the chain; on failure everything is as before. */
  async insertFilter(name: string | null): Promise<void> {
    const { graph } = this.#registry;
    const { top } = this.#plan;
    const internal: CopyOnReadInternal = { copyOnRead: this.#copier };
    try {
      this.#unfreeze = graph.freezeChain(top, this.#lastLayer, 'stream');
    } catch (error) {
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
    } catch (error) {
      await this.clean();
      throw error;
    }
  }

  async attach(job: Job): Promise<void> {
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
    for (const edge of [backend, ...this.#guards]) pauseWithNode(job, edge);
  }

  setSpeed(bytesPerSecond: number): void {
    this.#speed = bytesPerSecond;
    this.#loop?.setSpeed(bytesPerSecond);
  }

  async run(job: Job): Promise<void> {
    if (this.#empty) return;
    const { engine, graph } = this.#registry;
    const top = skipFilters(this.#plan.top);
    job.setTotal(top.length);
    const session = engine.open({
      source: { node: must(top.backing, 'there is something to stream') },
      target: { node: top },
      unit: this.#unit,
      zeroGranularity: this.#unit,
      flushedSoon: true,
      fill: (offset, length) => this.#copier.fill(offset, length),
    });
    const walk = new DueWalk({
      job,
      length: top.length,
      unit: this.#unit,
      retries: this.#plan.onError !== 'ignore',
      statusAt: (offset, end) => this.#statusAt(offset, end),
      copy: async (spans) => asRead(await session.copyAll(spans)),
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

  async prepare(): Promise<void> {
    const link = this.#link();
    const top = skipFilters(this.#plan.top);
    if (link === undefined) return await this.#registry.graph.standStill([top]);
    if (Buffer.byteLength(link?.file ?? '') > IMAGE_LIMITS.backingNameBytes) {
      throw new BlockError('invalid-option', 'Invalid argument');
    }
    // A reopen reads the header that this writes.
    await entered(must(this.#backend, 'the job is attached'), async () => {
      await top.flush();
      await top.changeBacking(link);
    });
    this.#unfreeze?.();
    this.#unfreeze = null;
    await this.#registry.graph.setBacking(top, this.#base);
  }

  async clean(): Promise<void> {
    this.#unfreeze?.();
    this.#unfreeze = null;
    const filter = this.#filter;
    const backends = [this.#backend, this.#reader].filter((each) => each !== null);
    this.#backend = null;
    this.#reader = null;
    this.#filter = null;
    const wasReadOnly = this.#wasReadOnly;
    this.#wasReadOnly = false;
    await letGo([
      () => detachAll(backends),
      () => (filter === null ? undefined : this.#removeFilter(filter)),
      () => (wasReadOnly ? this.#makeReadOnly() : undefined),
    ]);
  }

  async dismiss(): Promise<void> {
    await detachAll(this.#guards.splice(0));
  }

  /** The reference drains the filter three times on the way, which jobs above it show. */
  async #removeFilter(filter: Node): Promise<void> {
    const { graph } = this.#registry;
    for (let round = 0; round < 2; round++) await graph.standStill([filter]);
    await graph.removeFilter(filter);
  }

  /** Whoever writes to the top by now may go on. */
  async #makeReadOnly(): Promise<void> {
    await this.#registry.graph.setReadOnly(this.#plan.top, true).catch(() => undefined);
  }

  /** What the header is to say; undefined when it stays as it is. */
  #link(): BackingLink | null | undefined {
    const { backingFile } = this.#plan;
    if (skipFilters(this.#plan.top).backing === null) return undefined;
    if (this.#base === null) return null;
    const base = skipFilters(this.#base);
    return { file: backingFile ?? base.filename, format: base.driver.name };
  }

  /** Due is what the top lacks and the layers above the base have. */
  async #statusAt(offset: number, end: number): Promise<DueStatus> {
    const chain = { top: skipFilters(this.#plan.top), base: this.#base };
    const asked = Math.min(COPY_LIMITS.zeroRangeBytes, end - offset);
    const status = await layerStatus(chain, offset, asked);
    return { due: status.where === 'middle', length: status.length };
  }
}

/** Filling an overlay is reading it, whichever side fails: so it is reported. */
function asRead(failure: CopyFailure | null): CopyFailure | null {
  return failure === null ? null : { ...failure, side: 'source' };
}
