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
import { CopyLoop, lengthen } from '../copy-loop.js';
import { DueWalk } from '../due-walk.js';
import type { DueStatus } from '../due-walk.js';
import type { Job } from '../job.js';
import { overlaysOf } from '../links.js';
import type { OnError } from '../options.js';
import { detachAll, entered, insertJobFilter, jobUser, letGo, pauseWithNode } from '../start.js';
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
  #madeWritable = false;
  #speed = 0;

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
    for (const edge of this.#edges) pauseWithNode(job, edge);
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
    const session = engine.open({
      source: { node: top },
      target: must(this.#base, 'the job is attached'),
      unit,
      zeroGranularity: unit,
      flushedSoon: true,
    });
    const walk = new DueWalk({
      job,
      length: top.length,
      unit,
      retries: true,
      statusAt: (offset, end) => this.#statusAt(offset, end),
      copy: (spans) => session.copyAll(spans),
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
      next: (limit) => walk.next(limit),
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

  /** A layer that cannot tell is read: the read says what is wrong. */
  async #statusAt(offset: number, end: number): Promise<DueStatus> {
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
}

function asJobError(error: unknown): BlockError {
  const failure = toBlockError(error);
  if (failure.kind !== 'io' && failure.kind !== 'no-space') return failure;
  return new BlockError(failure.kind, errnoText(failure.errno), { cause: failure });
}
