// SPDX-License-Identifier: Apache-2.0
// Snapshots within images in use: blockdev-snapshot-internal-sync and -delete-internal-sync.
//
// The caller drains the node. Made in a transaction that fails the snapshot is deleted again.

import { BlockError, errnoText } from '../base/index.js';
import { internalSnapshotsOf, requireOperation } from '../block/index.js';
import type { InternalSnapshots, Node, SnapshotFacts } from '../block/index.js';
import type { Engine } from './engine.js';
import type { PreparedSnapshot } from './snapshot.js';

/** Bytes of a name; more are cut off. */
const NAME_BYTES = 255;
const MICROSECONDS = 1_000_000;

/** `device` is what the command calls the node. */
export async function prepareInternalSnapshot(
  engine: Engine,
  request: { readonly device: string; readonly name: string },
): Promise<PreparedSnapshot> {
  const { device, name } = request;
  const node = engine.jobs.rootNode(device);
  requireOperation(node, 'internal-snapshot');
  requireWritable(node, device);
  const snapshots = internalSnapshotsOf(node);
  if (snapshots === null) throw unsupported(node, device);
  if (name === '') throw new BlockError('invalid-option', 'Name is empty');
  if (snapshots.isRefused) throw noList();
  if (snapshots.list().some((each) => each.name === name)) {
    throw new BlockError(
      'exists',
      `Snapshot with name '${name}' already exists on device '${device}'`,
    );
  }
  const now = engine.graph.clock.wallMicroseconds();
  const dateSeconds = Math.floor(now / MICROSECONDS);
  let made: SnapshotFacts;
  try {
    made = await snapshots.create({
      name: Buffer.from(name).subarray(0, NAME_BYTES).toString(),
      dateSeconds,
      dateNanoseconds: (now % MICROSECONDS) * 1000,
      // Without a machine time itself is the machine's clock.
      vmClockSeconds: dateSeconds,
      vmClockNanoseconds: (now % MICROSECONDS) * 1000,
    });
  } catch (error) {
    throw failure(error, `Failed to create snapshot '${name}' on device '${device}'`);
  }
  return {
    commit: () => Promise.resolve(),
    abort: () => snapshots.remove(made),
  };
}

/** Gives what the snapshot was. */
export async function deleteInternalSnapshot(
  engine: Engine,
  request: { readonly device: string; readonly id?: string; readonly name?: string },
): Promise<SnapshotFacts> {
  const { device, id, name } = request;
  const node = engine.jobs.rootNode(device);
  if (id === undefined && name === undefined) {
    throw new BlockError('invalid-option', 'Name or id must be provided');
  }
  requireOperation(node, 'internal-snapshot-delete');
  const snapshots = internalSnapshotsOf(node);
  if (snapshots === null || snapshots.isRefused) throw noList();
  const found = find(snapshots, request);
  if (found === undefined) {
    throw new BlockError(
      'not-found',
      `Snapshot with id '${id ?? 'null'}' and name '${name ?? 'null'}' does not exist on ` +
        `device '${device}'`,
    );
  }
  requireWritable(node, device);
  const section = await engine.graph.drain([node]);
  try {
    await snapshots.remove(found);
  } catch (error) {
    throw failure(error, `Failed to remove snapshot '${found.name}' from device '${device}'`);
  } finally {
    section.end();
  }
  return found;
}

function find(
  snapshots: InternalSnapshots,
  { id, name }: { readonly id?: string; readonly name?: string },
): SnapshotFacts | undefined {
  return snapshots
    .list()
    .find((each) => (id ?? each.id) === each.id && (name ?? each.name) === each.name);
}

function requireWritable(node: Node, device: string): void {
  if (!node.readOnly) return;
  throw new BlockError('read-only', `Device '${device}' is read only`, { node: node.name });
}

function noList(): BlockError {
  return new BlockError('unsupported', `Failed to get a snapshot list: ${errnoText('ENOTSUP')}`);
}

function unsupported(node: Node, device: string): BlockError {
  return new BlockError(
    'unsupported',
    `Block format '${node.driver.name}' used by device '${device}' does not support internal ` +
      'snapshots',
    { node: node.name },
  );
}

function failure(error: unknown, what: string): unknown {
  if (!(error instanceof BlockError)) return error;
  return new BlockError(error.kind, `${what}: ${errnoText(error.errno)}`, { cause: error });
}
