// SPDX-License-Identifier: Apache-2.0
// Puts an engine together from a host.

import { corruptionText, createGraph, createRegistry } from '../block/index.js';
import type { Graph } from '../block/index.js';
import { CopyEngine, createLanes } from '../block/copy/index.js';
import type { Clock, Random } from '../base/index.js';
import type { Host } from '../host/index.js';
import { JobRegistry } from '../jobs/index.js';
import type { CompatPolicy } from '../schema/index.js';
import { DRIVER_LOADERS } from './catalog.js';
import { checkedDrivers } from './checked-drivers.js';
import { Engine } from './engine.js';
import type { ReferenceHabits } from './engine.js';
import { EventBus } from './events.js';
import { ObjectRegistry } from './objects.js';

export interface EngineOptions {
  readonly host: Host;
  /** Those of the host unless given. */
  readonly clock?: Clock;
  readonly random?: Random;
  /** Threads for copying; as many as the processors allow unless given, 0 = this thread only. */
  readonly lanes?: number;
  /** What to do as the reference does it, although something else is right. */
  readonly habits?: Partial<ReferenceHabits>;
  /** Refuse or hide what is deprecated or unstable; all is accepted unless given. */
  readonly compat?: Partial<CompatPolicy>;
  /** Called with what is wrong with an image and no reason to refuse it. */
  readonly onWarning?: (text: string) => void;
  /** Called with each line of a repair that an image needed when it was opened. */
  readonly onFinding?: (line: string) => void;
  /** Called with the line that tells of a corrupt image, beside the event. */
  readonly onCorruption?: (text: string) => void;
}

export function createEngine(options: EngineOptions): Promise<Engine> {
  const { host } = options;
  const clock = options.clock ?? host.clock;
  const random = options.random ?? host.random;
  const registry = createRegistry({
    drivers: checkedDrivers(DRIVER_LOADERS),
    probed: ['qcow2', 'luks'],
  });
  const events = new EventBus(clock);
  const objects = new ObjectRegistry(clock, () => graph);
  const graph: Graph = createGraph({
    host,
    registry,
    clock,
    random,
    ...(options.onWarning !== undefined && { onWarning: options.onWarning }),
    ...(options.onFinding !== undefined && { onFinding: options.onFinding }),
    onEvent: (name, data) => events.emit(name, data),
    throttleGroup: (name) => objects.throttleGroup(name),
    secret: (id) => objects.secret(id),
    onCorruption: (node, report) => {
      options.onCorruption?.(corruptionText(report));
      const { message, ...place } = report;
      const about = { device: '', 'node-name': node.name, msg: message };
      events.emit('BLOCK_IMAGE_CORRUPTED', { ...about, ...place });
    },
  });
  const copying = new CopyEngine({
    lanes: createLanes(host, options.lanes),
    lanesFor: (node) => objects.lanesOf(node, host),
  });
  const jobs = new JobRegistry({
    graph,
    engine: copying,
    driver: (name) => registry.load(name),
    emit: ({ name, data }) => events.emit(name, data),
  });
  const release = async (): Promise<void> => {
    events.close();
    await objects.close();
    await copying.close();
  };
  const { habits = {}, compat = {} } = options;
  const parts = { graph, jobs, events, objects, release, habits, compat };
  return Promise.resolve(new Engine(parts));
}
