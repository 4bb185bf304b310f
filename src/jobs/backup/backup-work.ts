// SPDX-License-Identifier: Apache-2.0
// The backup job at work: the source as it was when the filter came in goes to the target.
//
// Job and copy-before-write filter share one bitmap, so a unit is copied once, by whoever comes
// first. A unit that is still dirty has not been written since the start, so what was found out
// about it stays true while it is dirty. The target is flushed before run() returns, and before a
// bitmap says of anything that it was copied.

import { COPY_LIMITS, must, Permission, toBlockError } from '../../base/index.js';
import { infoBelow } from '../../block/index.js';
import type { Backend, Node } from '../../block/index.js';
import {
  backingOf,
  CopyBitmap,
  layerStatus,
  viewStatus,
  yieldToLoop,
} from '../../block/copy/index.js';
import type { CopyBeforeWriteInternal, CopyFailure, CopySession } from '../../block/copy/index.js';
import type { Span, ViewStatus } from '../../block/copy/index.js';
import { CopyLoop } from '../copy-loop.js';
import type { CopyWork, Hold } from '../copy-loop.js';
import type { Job } from '../job.js';
import { ScanPace } from '../scan-pace.js';
import { insertJobFilter, jobUser, letGo, pauseWithNode } from '../start.js';
import type { StartableWork } from '../start.js';
import type { JobRegistry } from '../registry.js';
import type { BackupPlan } from './plan.js';
import { SourceDiscard } from './source-discard.js';
import { SyncBitmap } from './sync-bitmap.js';

/** The job's own edges ask for nothing: filter and blocked operations do the keeping away. */
const NOTHING = { taken: Permission.none, shared: Permission.all };
/** What is discarded changes under all who use the source. */
const DISCARDING = { taken: Permission.write, shared: Permission.all };

export class BackupWork implements StartableWork {
  readonly #registry: JobRegistry;
  readonly #plan: BackupPlan;
  readonly #bitmap: CopyBitmap;
  #syncBitmap: SyncBitmap | null = null;
  /** Units that may be missing in the target, on disk; null: all that were wanted. */
  #missing: CopyBitmap | null = null;
  #wanted: CopyBitmap | null = null;
  #filter: Node | null = null;
  #backends: Backend[] = [];
  #loop: CopyLoop | null = null;
  #session: CopySession | null = null;
  #discard: SourceDiscard | null = null;
  #speed = 0;
  #hasBegun = false;
  #cursor = 0;
  /** Up to here the source is known to hold data. */
  #dataUntil = 0;
  /** Bytes of the units in flight, and of all that are to be copied. */
  #inFlight = 0;
  #total = 0;

  constructor(registry: JobRegistry, plan: BackupPlan) {
    this.#registry = registry;
    this.#plan = plan;
    const initially = plan.sync === 'bitmap' ? 'clean' : 'dirty';
    this.#bitmap = new CopyBitmap(plan.source.length, plan.unit, initially);
  }

  /**
   * The filter's coming in, with everything drained, is the point in time. The bitmap is frozen
   * with it, for the job `id`.
   */
  async insertFilter(id: string): Promise<void> {
    const { source, target, filterName, bitmap, sync } = this.#plan;
    const internal: CopyBeforeWriteInternal = { bitmap: this.#bitmap };
    if (bitmap !== null) {
      this.#syncBitmap = new SyncBitmap(source, bitmap, `job '${id}'`);
      if (sync === 'bitmap') this.#syncBitmap.choose(this.#bitmap);
      if (bitmap.mode === 'always') this.#wanted = this.#bitmap.clone();
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
    } catch (error) {
      await this.clean();
      throw error;
    }
  }

  async attach(job: Job): Promise<void> {
    const { graph } = this.#registry;
    const { target } = this.#plan;
    const filter = must(this.#filter, 'the filter is in place');
    const onSource = this.#plan.discardsSource ? DISCARDING : NOTHING;
    this.#backends.push(await graph.attach(filter, jobUser(job, 'main node'), onSource));
    this.#backends.push(await graph.attach(target, jobUser(job, 'target'), NOTHING));
    for (const edge of this.#backends) pauseWithNode(job, edge);
  }

  setSpeed(bytesPerSecond: number): void {
    this.#speed = bytesPerSecond;
    this.#loop?.setSpeed(bytesPerSecond);
  }

  async run(job: Job): Promise<void> {
    this.#hasBegun = true;
    this.#total = this.#bytesDue;
    job.setTotal(this.#total);
    try {
      await this.#copyAll(job);
    } catch (error) {
      await this.#noteMissing();
      throw error;
    } finally {
      await this.#discard?.makeRoom();
    }
  }

  commit(): void {
    this.#syncBitmap?.succeed();
  }

  abort(): void {
    // Undone with its transaction: nothing has changed.
    if (!this.#hasBegun) return this.#syncBitmap?.letGo();
    const missing = this.#missing ?? this.#wanted;
    this.#syncBitmap?.fail(missing ?? this.#bitmap);
  }

  async #copyAll(job: Job): Promise<void> {
    const { plan, target } = { plan: this.#plan, target: this.#target };
    await job.pausePoint();
    if (plan.sync === 'none') for (;;) await job.rest();
    if (plan.sync === 'top') await this.#leaveOutBacking(job);
    const cluster = infoBelow(target.node).clusterSize ?? plan.unit;
    this.#session = this.#registry.engine.open({
      source: this.#source,
      target,
      unit: plan.compress ? cluster : plan.unit,
      zeroGranularity: plan.unit,
      flushedSoon: true,
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
  async #noteMissing(): Promise<void> {
    if (this.#wanted === null && this.#discard === null) return;
    const missing = this.#bitmap.uncopied();
    try {
      await this.#target.node.flush();
      this.#missing = missing;
    } catch (error) {
      toBlockError(error);
    }
  }

  async clean(): Promise<void> {
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
  #unitBytes(length: number): number {
    return Math.ceil(length / this.#plan.unit) * this.#plan.unit;
  }

  get #bytesDue(): number {
    return this.#bitmap.dirtyUnits * this.#plan.unit + this.#inFlight;
  }

  get #source(): { readonly node: Node } {
    const filter = must(this.#filter, 'the filter is in place');
    return must(filter.children.get('file'), 'the filter has a source');
  }

  get #target(): { readonly node: Node } {
    const filter = must(this.#filter, 'the filter is in place');
    return must(filter.children.get('target'), 'the filter has a target');
  }

  async #next(job: Job, limit: number): Promise<CopyWork | Hold | null> {
    const { unit } = this.#plan;
    const bitmap = this.#bitmap;
    const claims: Claim[] = [];
    for (let left = limit; claims.length < COPY_LIMITS.batchRuns; ) {
      if (claims.length > 0 && left < unit) break;
      const offset = this.#nextDirty();
      if (offset < 0) break;
      const zeroes = await this.#zeroesAt(offset);
      if (!bitmap.isDirty(offset)) continue;
      const claim = this.#claim({ offset, limit: zeroes > 0 ? zeroes : left, zero: zeroes > 0 });
      claims.push(claim);
      if (!claim.zero) left -= claim.length;
    }
    if (claims.length > 0) return this.#workOf(job, claims);
    // A guest's copy that fails gives its units back, so the last of them is waited for.
    const others = this.#inFlight === 0 ? bitmap.locks.wait(0, bitmap.length) : undefined;
    return others === undefined ? null : { until: others };
  }

  #nextDirty(): number {
    const ahead = this.#bitmap.nextDirty(this.#cursor);
    return ahead >= 0 ? ahead : this.#bitmap.nextDirty(0);
  }

  /** Whole units that only the backing file has do not belong to the backup. */
  async #leaveOutBacking(job: Job): Promise<void> {
    const bitmap = this.#bitmap;
    const pace = new ScanPace();
    for (let offset = 0; offset < bitmap.length; ) {
      if (pace.due()) await yieldToLoop();
      if (job.pauseRequested || job.cancelled) await job.pausePoint();
      const left = bitmap.length - offset;
      const top = this.#source.node;
      const chain = { top, base: backingOf(top) };
      const status = await layerStatus(chain, offset, Math.min(left, COPY_LIMITS.zeroRangeBytes));
      const isOwn = status.where === 'top';
      const whole = isOwn ? this.#unitBytes(status.length) : this.#wholeUnits(status.length, left);
      const length = Math.max(whole, this.#plan.unit);
      if (!isOwn && whole > 0) this.#leaveOut(job, offset, length);
      offset += length;
    }
  }

  #leaveOut(job: Job, offset: number, length: number): void {
    const before = this.#bitmap.dirtyUnits;
    this.#bitmap.clear(offset, length);
    this.#total -= (before - this.#bitmap.dirtyUnits) * this.#plan.unit;
    job.setTotal(this.#total);
  }

  /** Bytes of whole units from `offset` that read as zeroes. */
  async #zeroesAt(offset: number): Promise<number> {
    if (offset < this.#dataUntil) return 0;
    const left = this.#bitmap.length - offset;
    const asked = Math.min(left, COPY_LIMITS.zeroRangeBytes);
    const status = await this.#statusAt(offset, asked);
    const whole = this.#wholeUnits(status.length, left);
    if (status.zero && whole > 0) return whole;
    this.#dataUntil = offset + Math.max(whole, this.#plan.unit);
    return 0;
  }

  /** Where it cannot be told the bytes are read, and whatever fails is an error of that. */
  async #statusAt(offset: number, length: number): Promise<ViewStatus> {
    try {
      return await viewStatus(this.#source.node, offset, length);
    } catch (error) {
      toBlockError(error);
      return { zero: false, length: Math.min(length, this.#plan.unit) };
    }
  }

  #wholeUnits(length: number, left: number): number {
    return length >= left ? left : length - (length % this.#plan.unit);
  }

  #claim(wanted: Omit<Claim, 'length' | 'release'> & { readonly limit: number }): Claim {
    const bitmap = this.#bitmap;
    const { offset, zero } = wanted;
    const length = bitmap.dirtyRun(offset, wanted.limit);
    const release = bitmap.locks.take(offset, length);
    bitmap.clear(offset, length);
    this.#cursor = offset + length;
    this.#inFlight += this.#unitBytes(length);
    return { offset, length, zero, release };
  }

  #workOf(job: Job, claims: readonly Claim[]): CopyWork {
    const bitmap = this.#bitmap;
    const data = claims.filter(({ zero }) => !zero);
    return {
      cost: data.reduce((sum, { length }) => sum + length, 0),
      run: () => this.#copy(claims, data),
      over: (failure) => {
        for (const claim of claims) {
          this.#inFlight -= this.#unitBytes(claim.length);
          if (failure !== null) bitmap.set(claim.offset, claim.length);
          claim.release();
        }
        job.progressTo(this.#total - this.#bytesDue);
      },
    };
  }

  /** The ranges are held, so what is discarded is what was copied. */
  async #copy(claims: readonly Claim[], data: readonly Claim[]): Promise<CopyFailure | null> {
    const session = must(this.#session, 'the job runs');
    for (const { offset, length, zero } of claims) {
      const failure = zero ? await session.zero(offset, length) : null;
      if (failure !== null) return failure;
    }
    const failure = data.length > 0 ? await session.copyAll(data) : null;
    if (failure !== null || this.#discard === null) return failure;
    return this.#discard.discard(claims);
  }
}

/** Units that nobody else copies until they are released. */
interface Claim extends Span {
  readonly zero: boolean;
  release(): void;
}
