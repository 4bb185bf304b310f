// SPDX-License-Identifier: Apache-2.0
// A mirror at work, for `mirror` jobs and for commits of the active layer: the target is brought to
// what the source reads as and kept there, until the user lets it take the source's place.
//
// Order at the end: everything copied, guests drained, nothing dirty, target flushed; then, at
// PENDING and still drained, the users of the source move to the target in one turn. So no write
// is ever between the two. Without a pivot the target holds the drained moment all the same.

import { assert, BlockError, COPY_LIMITS, errnoText, must, Permission } from '../base/index.js';
import { toBlockError } from '../base/index.js';
import type { Backend, Child, DrainedSection, EdgeUser, Node, ShownBits } from '../block/index.js';
import { infoBelow, showBits, UNNAMED_USER } from '../block/index.js';
import { layerStatus, MirrorState, skipFilters, yieldToLoop } from '../block/copy/index.js';
import type { CopyFailure, CopySession, MirrorInternal } from '../block/copy/index.js';
import { CopyLoop, lengthen } from './copy-loop.js';
import type { Job } from './job.js';
import { changeRefused } from './job-work.js';
import type { JobChanges } from './job-work.js';
import { MirrorBatches } from './mirror-batches.js';
import { requireReplaceable, takePlace } from './mirror-pivot.js';
import type { MirrorPlan } from './mirror-pivot.js';
import { ScanPace } from './scan-pace.js';
import { entered, insertJobFilter, jobUser, letGo, pauseWithNode } from './start.js';
import type { StartableWork } from './start.js';
import type { JobRegistry } from './registry.js';

/** Four batches of the most bytes: while one is linked and the next is planned two are copied. */
const DEFAULT_BUFFER_BYTES = 4 * COPY_LIMITS.batchMaxBytes;
/** So much may be left when guests are held: they wait no longer than it takes to copy it. */
const LAST_BYTES = COPY_LIMITS.batchMaxBytes;
const NOTHING = { taken: Permission.none, shared: Permission.all };

export class MirrorWork implements StartableWork {
  readonly lingers = true;
  readonly #registry: JobRegistry;
  readonly #plan: MirrorPlan;
  readonly #state: MirrorState;
  #filter: Node | null = null;
  #unfreeze: (() => void) | null = null;
  #unobserve: (() => void) | null = null;
  readonly #backends: Backend[] = [];
  #main: Backend | null = null;
  #target: Backend | null = null;
  #loop: CopyLoop | null = null;
  #batches: MirrorBatches | null = null;
  #section: DrainedSection | null = null;
  #ending: 'pivot' | 'stay' | null = null;
  #resting = false;
  #pivoted = false;
  #madeWritable = false;
  #speed = 0;
  #blocking: boolean;
  /** All that was to be copied at the start is marked. */
  #marked = false;
  /** READY was reached. */
  #copied = false;

  constructor(registry: JobRegistry, plan: MirrorPlan) {
    this.#registry = registry;
    this.#plan = plan;
    this.#blocking = plan.blocking;
    this.#state = new MirrorState({
      length: plan.source.length,
      granularity: plan.granularity,
      commits: plan.type === 'commit',
      unmap: plan.unmap,
    });
  }

  /** Before the job exists; on failure everything is as before. */
  async insertFilter(): Promise<void> {
    const { type, source, target, filterName } = this.#plan;
    const internal: MirrorInternal = { mirror: this.#state };
    try {
      if (type === 'commit' && target.readOnly) {
        await this.#registry.graph.setReadOnly(target, false);
        this.#madeWritable = true;
      }
      this.#filter = await insertJobFilter(this.#registry, {
        driver: 'mirror_top',
        name: filterName,
        below: source,
        internal,
      });
    } catch (error) {
      await this.clean();
      throw error;
    }
  }

  async attach(job: Job): Promise<void> {
    const { graph } = this.#registry;
    const { source, target, type, between } = this.#plan;
    const filter = must(this.#filter, 'the filter is in place');
    const standing = Permission.all & ~Permission.resize;
    const reading = { taken: Permission.consistentRead, shared: standing };
    const guarding = { taken: Permission.none, shared: standing };
    this.#target = await this.#take(target, UNNAMED_USER, this.#targetPermissions());
    this.#main = await this.#take(filter, jobUser(job, 'main node'), reading);
    const edges = [
      this.#main,
      await this.#take(source, jobUser(job, 'source'), guarding),
      await this.#take(target, jobUser(job, 'target'), NOTHING),
    ];
    for (const node of between) {
      const sees = skipFilters(node) === skipFilters(target) ? Permission.consistentRead : 0;
      const shared = Permission.write | Permission.writeUnchanged | sees;
      const user = jobUser(job, 'intermediate node');
      edges.push(await this.#take(node, user, { taken: Permission.none, shared }));
    }
    if (type === 'commit') this.#unfreeze = graph.freezeChain(filter, target, 'commit');
    for (const edge of edges) pauseWithNode(job, edge);
    this.#state.listen(
      () => {
        if (this.#resting) job.wake();
      },
      (failure) => this.#loop?.report(job, failure),
    );
    const unobserve = source.addObserver(this.#state);
    const unshow = showBits(source, this.#shownBits());
    this.#unobserve = () => {
      unobserve();
      unshow();
    };
  }

  setSpeed(bytesPerSecond: number): void {
    this.#speed = bytesPerSecond;
    this.#loop?.setSpeed(bytesPerSecond);
  }

  /** Writes that are under way mark what they change, later ones reach the target, too. */
  change(changes: JobChanges): void {
    if (this.#plan.type !== 'mirror') throw changeRefused();
    const wanted = changes['copy-mode'] ?? 'background';
    if (this.#blocking === (wanted === 'write-blocking')) return;
    if (this.#blocking) {
      const text = `Change to copy mode '${wanted}' is not implemented`;
      throw new BlockError('unsupported', text);
    }
    this.#blocking = true;
    if (this.#marked) this.#state.block(must(this.#target, 'the job is attached'));
  }

  activelySynced(): boolean {
    if (!this.#blocking || !this.#copied || this.#batches?.working === true) return false;
    return this.#state.bitmap.dirtyUnits === 0;
  }

  complete(): void {
    const { replaces } = this.#plan;
    if (replaces !== null && this.#registry.graph.find(replaces) === null) {
      throw new BlockError('not-found', `Node name '${replaces}' not found`);
    }
    this.#ending ??= 'pivot';
  }

  finish(): void {
    this.#ending ??= 'stay';
  }

  async run(job: Job): Promise<void> {
    const { sync } = this.#plan;
    // What starts with something to copy is answered before it gets anywhere.
    if (sync !== 'none') await yieldToLoop();
    await this.#matchSizes();
    const session = this.#openSession();
    const loop = this.#openLoop(job, session);
    this.#loop = loop;
    await this.#findDue(job, session);
    this.#marked = true;
    if (this.#blocking) this.#state.block(must(this.#target, 'the job is attached'));
    for (;;) {
      await loop.run(job);
      if (!job.ready) {
        if (!(await this.#flush(job, loop, false))) continue;
        this.#copied = true;
        job.becomeReady();
      }
      if (this.#ending === null) await this.#rest(job);
      else if (await this.#converge(job, loop)) return;
    }
  }

  async prepare(): Promise<void> {
    if (this.#ending === 'pivot') await this.#pivot();
  }

  async clean(): Promise<void> {
    const { graph } = this.#registry;
    const { target, ownsTarget } = this.#plan;
    const [filter, section] = [this.#filter, this.#section];
    const readOnlyAgain = this.#madeWritable && !this.#pivoted;
    this.#filter = null;
    this.#section = null;
    this.#madeWritable = false;
    this.#state.unblock();
    this.#unobserve?.();
    this.#unobserve = null;
    this.#unfreeze?.();
    this.#unfreeze = null;
    await letGo([
      () => this.#awaitGuests(filter, section),
      ...this.#backends.splice(0).map((backend) => () => backend.detach()),
      () => (filter === null ? undefined : graph.removeFilter(filter)),
      // Whoever writes to it by now may go on.
      () =>
        readOnlyAgain ? graph.setReadOnly(target, true).catch(() => undefined) : undefined,
      () => (ownsTarget ? graph.close(target) : undefined),
      () => {
        section?.end();
        return undefined;
      },
    ]);
  }

  /** Writes of guests that are on their way to the target still need its edge. */
  async #awaitGuests(filter: Node | null, section: DrainedSection | null): Promise<void> {
    if (!this.#blocking || filter === null || section !== null) return;
    (await this.#registry.graph.drain([filter])).end();
  }

  async #take(
    node: Node,
    user: EdgeUser | string,
    permissions: { readonly taken: number; readonly shared: number },
  ): Promise<Backend> {
    const backend = await this.#registry.graph.attach(node, user, permissions);
    this.#backends.push(backend);
    return backend;
  }

  #shownBits(): ShownBits {
    const { bitmap } = this.#state;
    const isBlocking = (): boolean => this.#blocking;
    return {
      granularity: bitmap.unit,
      get recording() {
        return !isBlocking();
      },
      get count() {
        return bitmap.dirtyUnits * bitmap.unit;
      },
    };
  }

  /** A target below the source goes on being read by the chain, and grows if it is too short. */
  #targetPermissions(): { readonly taken: number; readonly shared: number } {
    const { type, source, target } = this.#plan;
    if (type === 'mirror') return { taken: Permission.write, shared: Permission.writeUnchanged };
    const grows = target.length < source.length ? Permission.resize : Permission.none;
    return {
      taken: Permission.write | grows,
      shared: Permission.all & ~Permission.resize,
    };
  }

  async #matchSizes(): Promise<void> {
    const { source, target, type } = this.#plan;
    if (type === 'commit' && target.length < source.length) {
      const backend = must(this.#target, 'the job is attached');
      await entered(backend, () => lengthen(target, source.length));
    }
    if (type === 'commit' || source.length === target.length) return;
    throw new BlockError('invalid-option', 'Source and target image have different sizes');
  }

  get #source(): Child {
    const filter = must(this.#filter, 'the filter is in place');
    return must(filter.children.get('backing'), 'the filter has a source');
  }

  get #unit(): number {
    const { target, granularity } = this.#plan;
    return Math.max(granularity, infoBelow(target).clusterSize ?? 0);
  }

  #openSession(): CopySession {
    return this.#registry.engine.open({
      source: this.#source,
      target: must(this.#target, 'the job is attached'),
      unit: this.#unit,
      zeroGranularity: this.#unit,
      flushedSoon: true,
      unmap: this.#plan.unmap,
    });
  }

  #openLoop(job: Job, session: CopySession): CopyLoop {
    const { bufferBytes, onSourceError, onTargetError } = this.#plan;
    const bytes = bufferBytes === 0 ? DEFAULT_BUFFER_BYTES : bufferBytes;
    const maxBatch = Math.max(this.#unit, Math.min(bytes, COPY_LIMITS.batchMaxBytes));
    const batches = (this.#batches = new MirrorBatches({
      job,
      session,
      source: this.#source,
      state: this.#state,
      unit: this.#unit,
    }));
    const loop = new CopyLoop({
      clock: this.#registry.graph.clock,
      backend: must(this.#main, 'the job is attached'),
      unit: this.#unit,
      window: Math.max(1, Math.floor(bytes / maxBatch)),
      maxBatch,
      onSourceError,
      onTargetError,
      retryIgnored: true,
      next: (limit) => (this.#isNearEnd(job) ? null : batches.next(limit)),
    });
    loop.setSpeed(this.#speed);
    return loop;
  }

  /** What the target may lack at the start; guests' writes are noted beside it. */
  async #findDue(job: Job, session: CopySession): Promise<void> {
    const { sync, zeroTarget, target } = this.#plan;
    const { bitmap } = this.#state;
    if (sync === 'none') return;
    await job.pausePoint();
    if (zeroTarget && !zeroesByUnmapping(target)) {
      bitmap.set(0, bitmap.length);
    } else {
      if (zeroTarget) await this.#zeroTarget(job, session);
      await this.#findAllocated(job);
    }
    job.setTotal(job.progress + bitmap.dirtyUnits * bitmap.unit);
  }

  async #zeroTarget(job: Job, session: CopySession): Promise<void> {
    const { length } = this.#state.bitmap;
    for (let offset = 0; offset < length; offset += COPY_LIMITS.zeroRangeBytes) {
      await job.pausePoint();
      const size = Math.min(COPY_LIMITS.zeroRangeBytes, length - offset);
      const backend = must(this.#target, 'the job is attached');
      const failure = await entered(backend, () => session.zero(offset, size));
      if (failure !== null) throw failureText(failure);
    }
  }

  async #findAllocated(job: Job): Promise<void> {
    const { bitmap } = this.#state;
    const { base } = this.#plan;
    const pace = new ScanPace();
    for (let offset = 0; offset < bitmap.length; ) {
      if (pace.due()) await yieldToLoop();
      if (job.pauseRequested || job.cancelled) await job.pausePoint();
      const chain = { top: this.#source.node, base };
      const asked = Math.min(COPY_LIMITS.zeroRangeBytes, bitmap.length - offset);
      const status = await layerStatus(chain, offset, asked);
      if (status.where !== 'below') bitmap.set(offset, status.length);
      offset += status.length;
    }
  }

  async #rest(job: Job): Promise<void> {
    if (this.#state.bitmap.dirtyUnits > 0) return;
    this.#resting = true;
    try {
      await job.rest();
    } finally {
      this.#resting = false;
    }
  }

  /** What is left is little enough for guests to be held while it is copied. */
  #isNearEnd(job: Job): boolean {
    const { bitmap } = this.#state;
    return this.#ending !== null && job.ready && bitmap.dirtyUnits * bitmap.unit <= LAST_BYTES;
  }

  /** True when the target is the source, on disk, and stays so: guests are held from here on. */
  async #converge(job: Job, loop: CopyLoop): Promise<boolean> {
    job.standsStill = true;
    const section = await this.#registry.graph.drain([this.#source.node]);
    if ((await this.#copyLast(job, loop)) && (await this.#flush(job, loop, true))) {
      this.#section = section;
      return true;
    }
    section.end();
    job.standsStill = false;
    return false;
  }

  /** What was written since; nobody writes any more. */
  async #copyLast(job: Job, loop: CopyLoop): Promise<boolean> {
    const batches = must(this.#batches, 'the job runs');
    while (!job.cancelled) {
      const work = await batches.next(COPY_LIMITS.batchMaxBytes);
      if (work === null) return true;
      assert('run' in work, 'no range is in use while everyone is held');
      const failure = await work.run();
      work.over(failure);
      if (failure === null) continue;
      loop.report(job, failure);
      return false;
    }
    return false;
  }

  /** False when it failed: the target's policy says what follows. */
  async #flush(job: Job, loop: CopyLoop, drained: boolean): Promise<boolean> {
    const target = must(this.#target, 'the job is attached');
    try {
      // Its edge lets nothing pass while it is drained, be it by the job itself.
      await (drained ? target.node : target).flush();
      return true;
    } catch (error) {
      loop.report(job, { side: 'target', error: toBlockError(error) });
      return false;
    }
  }

  async #pivot(): Promise<void> {
    const { graph } = this.#registry;
    const filter = must(this.#filter, 'the filter is in place');
    const node = requireReplaceable(graph, this.#plan);
    this.#unfreeze?.();
    this.#unfreeze = null;
    for (const backend of this.#backends) backend.setPermissions(NOTHING);
    await takePlace(graph, this.#plan, { node, filter });
    this.#pivoted = true;
  }
}

function zeroesByUnmapping(target: Node): boolean {
  const discard = target.options['discard'];
  return (discard === 'unmap' || discard === 'on') && target.driver.supports.writeZeroes !== 'none';
}

function failureText({ error }: CopyFailure): BlockError {
  return new BlockError(error.kind, errnoText(error.errno), { errno: error.errno, cause: error });
}
