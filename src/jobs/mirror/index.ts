// SPDX-License-Identifier: Apache-2.0
// `blockdev-mirror` and `drive-mirror`: check the arguments in the reference's order and start the
// job. What is refused before the job exists sends no event.

import { BlockError } from '../../base/index.js';
import { infoBelow, requireOperation } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import { backingOf } from '../../block/copy/index.js';
import type { Job } from '../job.js';
import { requireOther } from '../links.js';
import { canReplace } from '../mirror-pivot.js';
import type { MirrorPlan } from '../mirror-pivot.js';
import { MirrorWork } from '../mirror-work.js';
import { createImageFile, imageFormat, openImageFile } from '../new-image.js';
import { requireFilterName, startWork } from '../start.js';
import type { JobRegistry } from '../registry.js';
import type { DriveMirrorOptions, MirrorOptions } from './options.js';

export { driveMirrorOptions, mirrorOptions } from './options.js';

const MIN_GRANULARITY = 512;
const MAX_GRANULARITY = 64 * 2 ** 20;
/** Where the target has no clusters; with clusters their size, within these bounds. */
const DEFAULT_GRANULARITY = 65_536;
const LEAST_DEFAULT_GRANULARITY = 4096;

export async function startMirror(registry: JobRegistry, args: MirrorOptions): Promise<Job> {
  const source = registry.rootNode(args.device);
  const target = registry.node(args.target);
  const plan = planMirror(registry, args, {
    source,
    target,
    zeroTarget: args.sync === 'full',
    backing: 'as-it-is',
    unmap: true,
    filterName: args['filter-node-name'] ?? null,
    ownsTarget: false,
  });
  return start(registry, args, plan);
}

export async function startDriveMirror(
  registry: JobRegistry,
  args: DriveMirrorOptions,
): Promise<Job> {
  const source = registry.rootNode(args.device);
  requireReplacement(args);
  const { target, existing } = await makeTarget(registry, source, args);
  let plan: MirrorPlan;
  try {
    plan = planMirror(registry, args, {
      source,
      target,
      zeroTarget: args.sync === 'full' && existing,
      backing: existing ? 'as-header-says' : backingAfter(effectiveSync(source, args.sync)),
      unmap: args.unmap ?? true,
      filterName: null,
      ownsTarget: true,
    });
    registry.requireFreeId(args['job-id'] ?? '');
  } catch (error) {
    await registry.graph.close(target);
    throw error;
  }
  return start(registry, args, plan);
}

async function start(
  registry: JobRegistry,
  args: MirrorOptions | DriveMirrorOptions,
  plan: MirrorPlan,
): Promise<Job> {
  const id = args['job-id'] ?? '';
  if (plan.filterName !== null) requireFilterName(registry, plan.filterName, '');
  registry.requireFreeId(id);
  const work = new MirrorWork(registry, plan);
  await work.insertFilter();
  const job = await startWork(registry, work, {
    setup: {
      id,
      type: 'mirror',
      blockJob: true,
      autoFinalize: args['auto-finalize'] ?? true,
      autoDismiss: args['auto-dismiss'] ?? true,
    },
    speed: args.speed ?? 0,
  });
  // With nothing to copy it is READY before it answers.
  if (plan.sync === 'none') await job.restsOrEnds();
  return job;
}

type PlanFacts = Pick<
  MirrorPlan,
  'source' | 'target' | 'zeroTarget' | 'backing' | 'unmap' | 'filterName' | 'ownsTarget'
>;

function planMirror(
  registry: JobRegistry,
  args: MirrorOptions | DriveMirrorOptions,
  facts: PlanFacts,
): MirrorPlan {
  const { source, target } = facts;
  const granularity = granularityOf(args.granularity ?? 0, target);
  requireOperation(source, 'mirror-source');
  requireOperation(target, 'mirror-target');
  if (args.replaces !== undefined) requireReplaceable(registry, source, args.replaces);
  if (args.sync === 'incremental' || args.sync === 'bitmap') {
    throw new BlockError('unsupported', `Sync mode '${args.sync}' not supported`);
  }
  const bufferBytes = Number(args['buf-size'] ?? 0);
  if (bufferBytes < 0) throw new BlockError('invalid-option', "Invalid parameter 'buf-size'");
  requireOther(source, target);
  const sync = effectiveSync(source, args.sync);
  return {
    ...facts,
    type: 'mirror',
    sync,
    base: sync === 'top' ? backingOf(source) : null,
    between: [],
    granularity,
    bufferBytes,
    blocking: args['copy-mode'] === 'write-blocking',
    replaces: args.replaces ?? null,
    onSourceError: args['on-source-error'] ?? 'report',
    onTargetError: args['on-target-error'] ?? 'report',
  };
}

/** Without a backing file the top is all there is. */
function effectiveSync(source: Node, sync: MirrorOptions['sync']): MirrorPlan['sync'] {
  if (sync === 'top' && backingOf(source) === null) return 'full';
  return sync === 'top' || sync === 'none' ? sync : 'full';
}

function backingAfter(sync: MirrorPlan['sync']): MirrorPlan['backing'] {
  if (sync === 'none') return 'source';
  return sync === 'top' ? 'source-backing' : 'as-it-is';
}

function granularityOf(asked: number, target: Node): number {
  if (asked === 0) {
    const cluster = infoBelow(target).clusterSize ?? DEFAULT_GRANULARITY;
    return Math.min(DEFAULT_GRANULARITY, Math.max(LEAST_DEFAULT_GRANULARITY, cluster));
  }
  if (asked < MIN_GRANULARITY || asked > MAX_GRANULARITY) {
    throw new BlockError(
      'invalid-option',
      "Parameter 'granularity' expects a value in range [512B, 64MB]",
    );
  }
  if (!Number.isInteger(Math.log2(asked))) {
    throw new BlockError('invalid-option', "Parameter 'granularity' expects a power of 2");
  }
  return asked;
}

function requireReplaceable(registry: JobRegistry, source: Node, name: string): void {
  const node = registry.graph.find(name);
  if (node === null) {
    throw new BlockError('not-found', `Failed to find node with node-name='${name}'`);
  }
  requireOperation(node, 'replace');
  if (!canReplace(source, node)) {
    throw new BlockError(
      'invalid-option',
      `Cannot replace '${name}' by a node mirrored from '${source.name}', because it cannot be ` +
        'guaranteed that doing so would not lead to an abrupt change of visible data',
    );
  }
  if (node.length !== source.length) {
    throw new BlockError(
      'invalid-option',
      'cannot replace image with a mirror image of different size',
    );
  }
}

function requireReplacement(args: DriveMirrorOptions): void {
  if (args.replaces === undefined || args['node-name'] !== undefined) return;
  throw new BlockError(
    'invalid-option',
    'a node-name must be provided when replacing a named node of the graph',
  );
}

interface Target {
  readonly target: Node;
  readonly existing: boolean;
}

/** Makes the file, unless it is to be there, and opens it without its backing file. */
async function makeTarget(
  registry: JobRegistry,
  source: Node,
  args: DriveMirrorOptions,
): Promise<Target> {
  const existing = args.mode === 'existing';
  // By default the format of the source; a file that is there is asked itself.
  const format = args.format ?? (existing ? null : source.driver.name);
  if (!existing && format !== null) {
    const backing = targetBacking(source, effectiveSync(source, args.sync));
    await createImageFile(registry, {
      driver: await imageFormat(registry, format),
      filename: args.target,
      size: source.length,
      backing,
    });
  }
  const target = await openImageFile(registry, {
    filename: args.target,
    format,
    name: args['node-name'] ?? null,
    like: source,
  });
  return { target, existing };
}

function targetBacking(source: Node, sync: MirrorPlan['sync']): Node | null {
  if (sync === 'none') return source;
  return sync === 'top' ? backingOf(source) : null;
}
