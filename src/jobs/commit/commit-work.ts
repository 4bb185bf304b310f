// SPDX-License-Identifier: Apache-2.0
// The commit job at work, below the active layer: what lies from top down to base (exclusive) is
// copied into the base, then whoever stands on top stands on the base.
//
// Order of safety: the base has everything and is flushed at the end of run() and again in
// prepare(); then each overlay's header names the base, durably; the graph follows in one turn.
// Until then the images above hide what the base has got, so a power cut leaves the chain as it
// was. A change of the graph that is refused puts the headers back.

import { BlockError, COPY_LIMITS, errnoText, must, Permission } from '../../base/index.js';
import { toBlockError } from '../../base/index.js';
import { RequestFlag, UNNAMED_USER } from '../../block/index.js';
import type { BackingLink, Backend, EdgeUser, Node } from '../../block/index.js';
import { layerStatus, skipFilters, yieldToLoop } from '../../block/copy/index.js';
import type { CopySession } from '../../block/copy/index.js';
import { CopyLoop, lengthen } from '../copy-loop.js';
import type { CopyWork, Hold } from '../copy-loop.js';
import type { Job } from '../job.js';
import { overlaysOf } from '../links.js';
import type { OnError } from '../options.js';
import { ScanPace } from '../scan-pace.js';
import { detachAll, entered, insertJobFilter, jobUser, letGo } from '../start.js';
import { requireFilterName } from '../start.js';
import type { StartableWork } from '../start.js';
import type { JobRegistry } from '../registry.js';

export interface CommitPlan {
  readonly device: Node;
  readonly top: Node;
  readonly base: Node;
  /** From top down to base (exclusive), filters included. */
  readonly layers: readonly Node[];
  readonly backingFile: string | null;
  readonly filterName: string | null;
  readonly onError: OnError;
}

/** Where a base tells no cluster size. */
const DEFAULT_UNIT = 65_536;
const NOTHING = { taken: Permission.none, shared: Permission.all };

interface Relinked {
  readonly overlay: Node;
  readonly before: BackingLink | null;
  readonly wasReadOnly: boolean;
}

export class CommitWork implements StartableWork {
  readonly #registry: JobRegistry;
  readonly #plan: CommitPlan;
  #filter: Node | null = null;
  #main: Backend | null = null;
  #base: Backend | null = null;
  /** The edges that are the job's own, and stay until the dismissal of one that ended well. */
  readonly #edges: Backend[] = [];
  readonly #backends: Backend[] = [];
  #done = false;
  #unfreeze: (() => void) | null = null;
  #loop: CopyLoop | null = null;
  #session: CopySession | null = null;
  #madeWritable = false;
  #speed = 0;
  #cursor = 0;
  readonly #pace = new ScanPace();
  /** Ranges claimed and not yet copied; those that failed are tried again. */
  readonly #due = new Set<number>();
  readonly #failed = new Map<number, number>();

  constructor(registry: JobRegistry, plan: CommitPlan) {
    this.#registry = registry;
    this.#plan = plan;
  }

  async attach(job: Job): Promise<void> {
    const { graph } = this.#registry;
    const { device, top, base, layers, filterName } = this.#plan;
    requireFilterName(this.#registry, filterName ?? undefined, '');
    if (base.readOnly) {
      await graph.setReadOnly(base, false);
      this.#madeWritable = true;
    }
    const filter = await insertJobFilter(this.#registry, {
      driver: 'commit_top',
      name: filterName,
      below: top,
      readOnly: true,
      internal: {},
    });
    this.#filter = filter;
    const main = await this.#takeEdge(device, jobUser(job, 'main node'), NOTHING);
    this.#main = main;
    for (const layer of layers) {
      const sees = skipFilters(layer) === skipFilters(base) ? Permission.consistentRead : 0;
      const shared = Permission.write | Permission.writeUnchanged | sees;
      const user = jobUser(job, 'intermediate node');
      await this.#takeEdge(layer, user, { taken: Permission.none, shared });
    }
    this.#unfreeze = graph.freezeChain(filter, base, 'commit');
    await this.#takeEdge(base, jobUser(job, 'base'), NOTHING);
    const grows = base.length < top.length ? Permission.resize : Permission.none;
    this.#base = await graph.attach(base, UNNAMED_USER, {
      taken: Permission.consistentRead | Permission.write | grows,
      shared: Permission.consistentRead | Permission.writeUnchanged,
    });
    this.#backends.push(this.#base, await graph.attach(top, UNNAMED_USER, NOTHING));
    main.onQuiesce((quiesced) => {
      if (quiesced) job.quiesce();
      else job.unquiesce();
    });
  }

  setSpeed(bytesPerSecond: number): void {
    this.#speed = bytesPerSecond;
    this.#loop?.setSpeed(bytesPerSecond);
  }

  async run(job: Job): Promise<void> {
    const { top, base, onError } = this.#plan;
    const { graph, engine } = this.#registry;
    await yieldToLoop();
    job.setTotal(top.length);
    if (base.length < top.length) {
      await entered(must(this.#base, 'the job is attached'), () =>
        lengthen(base, top.length),
      );
    }
    const unit = this.#unit;
    this.#session = engine.open({
      source: { node: top },
      target: must(this.#base, 'the job is attached'),
      unit,
      zeroGranularity: unit,
    });
    this.#loop = new CopyLoop({
      clock: graph.clock,
      backend: must(this.#base, 'the job is attached'),
      unit,
      window: COPY_LIMITS.batchesPerJob,
      maxBatch: COPY_LIMITS.batchMaxBytes,
      onSourceError: onError,
      onTargetError: onError,
      retryIgnored: true,
      next: (limit) => this.#next(job, limit),
    });
    this.#loop.setSpeed(this.#speed);
    await this.#loop.run(job);
    await this.#zeroTail();
    job.progressTo(top.length);
    await must(this.#base, 'the job is attached').flush();
  }

  async prepare(): Promise<void> {
    const { graph } = this.#registry;
    const { base, backingFile } = this.#plan;
    const filter = must(this.#filter, 'the filter is in place');
    await must(this.#base, 'the job is attached').flush();
    this.#unfreeze?.();
    this.#unfreeze = null;
    const named = skipFilters(base);
    const link = { file: backingFile ?? named.filename, format: named.driver.name };
    const relinked: Relinked[] = [];
    try {
      for (const overlay of overlaysOf(filter)) await this.#relink(overlay, link, relinked);
      for (const backend of this.#backends) backend.setPermissions(NOTHING);
      await graph.replaceNode({ node: filter, by: base });
    } catch (error) {
      for (const each of relinked) {
        await each.overlay.changeBacking(each.before).catch(() => undefined);
      }
      throw asJobError(error);
    } finally {
      for (const { overlay, wasReadOnly } of relinked) {
        if (wasReadOnly) await graph.setReadOnly(overlay, true).catch(() => undefined);
      }
    }
  }

  commit(): void {
    this.#done = true;
  }

  async clean(): Promise<void> {
    const { graph } = this.#registry;
    const filter = this.#filter;
    const madeWritable = this.#madeWritable;
    this.#filter = null;
    this.#madeWritable = false;
    this.#unfreeze?.();
    this.#unfreeze = null;
    await letGo([
      () => detachAll(this.#backends.splice(0)),
      () => (this.#done ? undefined : this.dismiss()),
      () => (filter === null ? undefined : graph.removeFilter(filter)),
      // Whoever writes to it by now may go on.
      () =>
        madeWritable
          ? graph.setReadOnly(this.#plan.base, true).catch(() => undefined)
          : undefined,
    ]);
  }

  async dismiss(): Promise<void> {
    await detachAll(this.#edges.splice(0));
  }

  get #unit(): number {
    return skipFilters(this.#plan.base).info.clusterSize ?? DEFAULT_UNIT;
  }

  async #takeEdge(
    node: Node,
    user: EdgeUser,
    permissions: { readonly taken: number; readonly shared: number },
  ): Promise<Backend> {
    const backend = await this.#registry.graph.attach(node, user, permissions);
    this.#edges.push(backend);
    return backend;
  }

  /**
   * A base that is longer than the top shows what the top's end hid: to overlays that reach so
   * far these bytes were zeroes.
   */
  async #zeroTail(): Promise<void> {
    const { top, base } = this.#plan;
    const overlays = overlaysOf(must(this.#filter, 'the filter is in place'));
    const end = Math.min(base.length, Math.max(0, ...overlays.map(({ length }) => length)));
    for (let at = top.length; at < end; at += COPY_LIMITS.zeroRangeBytes) {
      const size = Math.min(COPY_LIMITS.zeroRangeBytes, end - at);
      await must(this.#base, 'the job is attached').writeZeroes(at, size, RequestFlag.mayUnmap);
    }
  }

  /** The header of one overlay names the base from now on, on disk. */
  async #relink(overlay: Node, link: BackingLink, done: Relinked[]): Promise<void> {
    const { graph } = this.#registry;
    const wasReadOnly = overlay.readOnly;
    if (wasReadOnly) await graph.setReadOnly(overlay, false);
    // A reopen reads the header that this writes.
    await entered(must(this.#main, 'the job is attached'), async () => {
      done.push({ overlay, before: overlay.backingLink(), wasReadOnly });
      await overlay.flush();
      await overlay.changeBacking(link);
    });
  }

  /** Walks on to what the base lacks. */
  async #next(job: Job, limit: number): Promise<CopyWork | Hold | null> {
    const { length } = this.#plan.top;
    const unit = this.#unit;
    while (this.#cursor < length) {
      if (this.#pace.due()) return { until: yieldToLoop() };
      const status = await this.#statusAt(this.#cursor, length);
      if (status.due) {
        const start = Math.floor(this.#cursor / unit) * unit;
        const most = Math.min(start + limit, length);
        let until = this.#cursor + status.length;
        while (until < most) {
          const more = await this.#statusAt(until, most);
          if (!more.due) break;
          until += more.length;
        }
        const end = Math.min(Math.ceil(until / unit) * unit, most);
        return this.#claim(job, start, end - start);
      }
      this.#cursor += status.length;
      if (this.#due.size === 0) job.progressTo(this.#cursor);
    }
    return this.#retry(job);
  }

  /** A layer that cannot tell is read: the read says what is wrong. */
  async #statusAt(
    offset: number,
    end: number,
  ): Promise<{ readonly due: boolean; readonly length: number }> {
    const { top, base } = this.#plan;
    const asked = Math.min(COPY_LIMITS.zeroRangeBytes, end - offset);
    try {
      const status = await layerStatus({ top, base }, offset, asked);
      return { due: status.where !== 'below', length: status.length };
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return { due: true, length: Math.min(asked, this.#unit) };
    }
  }

  #claim(job: Job, offset: number, length: number): CopyWork {
    this.#cursor = Math.max(this.#cursor, offset + length);
    this.#due.add(offset);
    const session = must(this.#session, 'the job runs');
    return {
      offset,
      length,
      cost: length,
      run: () => session.copy(offset, length),
      over: (failure) => {
        this.#due.delete(offset);
        if (failure !== null) this.#failed.set(offset, length);
        else job.progressTo(Math.min(this.#cursor, ...this.#due, ...this.#failed.keys()));
      },
    };
  }

  #retry(job: Job): CopyWork | null {
    for (const [offset, length] of this.#failed) {
      this.#failed.delete(offset);
      return this.#claim(job, offset, length);
    }
    return null;
  }
}

function asJobError(error: unknown): BlockError {
  const failure = toBlockError(error);
  if (failure.kind !== 'io' && failure.kind !== 'no-space') return failure;
  return new BlockError(failure.kind, errnoText(failure.errno), { cause: failure });
}
