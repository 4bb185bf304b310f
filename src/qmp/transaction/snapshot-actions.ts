// SPDX-License-Identifier: Apache-2.0
// Snapshots: what the commands of the same names do is a transaction of one of these actions.

import type { ActionData } from '../../api/index.js';
import { BlockError } from '../../base/index.js';
import type { Node } from '../../block/index.js';
import {
  prepareInternalSnapshot,
  prepareSnapshotInto,
  prepareSnapshotOnto,
} from '../../engine/index.js';
import type { Engine, PreparedSnapshot } from '../../engine/index.js';
import type { ActionFamily } from './action.js';

export const snapshotActions: ActionFamily<
  'blockdev-snapshot' | 'blockdev-snapshot-sync' | 'blockdev-snapshot-internal-sync'
> = {
  'blockdev-snapshot': ({ engine }, data) => prepareSnapshot(engine, data),
  'blockdev-snapshot-sync': ({ engine }, data) => prepareSnapshotSync(engine, data),
  'blockdev-snapshot-internal-sync': ({ engine }, data) =>
    prepareInternalSnapshot(engine, data),
};

function prepareSnapshot(
  engine: Engine,
  data: ActionData<'blockdev-snapshot'>,
): Promise<PreparedSnapshot> {
  return prepareSnapshotOnto(engine, engine.jobs.node(data.node), data.overlay);
}

function prepareSnapshotSync(
  engine: Engine,
  data: ActionData<'blockdev-snapshot-sync'>,
): Promise<PreparedSnapshot> {
  return prepareSnapshotInto(engine, findNode(engine, data), {
    file: data['snapshot-file'],
    name: data['snapshot-node-name'],
    format: data.format ?? 'qcow2',
    existing: data.mode === 'existing',
  });
}

/** There are no devices, so that only a node name finds something. */
export function findNode(
  engine: Engine,
  args: { readonly device?: string; readonly 'node-name'?: string },
): Node {
  const name = args['node-name'] ?? '';
  const node = engine.graph.find(name);
  if (node !== null) return node;
  throw new BlockError(
    'not-found',
    `Cannot find device='${args.device ?? ''}' nor node-name='${name}'`,
  );
}
