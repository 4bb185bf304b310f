// SPDX-License-Identifier: Apache-2.0
// Opening a qcow2 image: header, refusals by name, top-level tables, then the data path.
//
// Opened only to look, nothing is written and an unsupported feature is reported instead of
// refused (inspect.ts). Opened read-write, unknown autoclear bits are cleared before anything
// else is written. Errors carry the path of the image file.

import { BlockError } from '../../../base/index.js';
import type { DriverNode, OpenContext } from '../../../block/index.js';
import { requireSupported, requireWritable, unsupportedFeature } from './features.js';
import { virtualSizeOf } from './header.js';
import type { Qcow2Header } from './header.js';
import { InspectedQcow2 } from './inspect.js';
import { readBitmaps, readSnapshots } from './listings.js';
import { openQcow2Node } from './node.js';
import { QCOW2_REFUSED_OPTIONS } from './options.js';
import type { Qcow2Options } from './options.js';
import { inspectHeader, Qcow2Structures, readTopTables, requireTables } from './structures.js';

export async function openQcow2(
  context: OpenContext,
  options: Qcow2Options,
): Promise<DriverNode> {
  for (const name of QCOW2_REFUSED_OPTIONS) {
    if (options[name] === undefined || options[name] === null) continue;
    throw new BlockError('unsupported', `Option '${name}' of driver 'qcow2' is not supported`);
  }
  const path = context.child('file').node.filename;
  try {
    return await openImage(context, options, path);
  } catch (error) {
    throw withPath(error, path);
  }
}

async function openImage(
  context: OpenContext,
  options: Qcow2Options,
  path: string,
): Promise<DriverNode> {
  const file = context.child('file');
  const header = await inspectHeader(file.node);
  const unusable = unsupportedFeature(header) ?? header.truncated;
  if (context.inspectOnly && unusable !== null) {
    const snapshots = await readSnapshots(file.node, header);
    const bitmaps = await readBitmaps(file.node, header);
    return new InspectedQcow2(file, header, { snapshots, bitmaps });
  }
  requireTables(header);
  requireSupported(header, { path });
  requireLazyRefcounts(header, options);
  const structures = new Qcow2Structures(file, header);
  if (!context.readOnly) {
    requireWritable(header, { path });
    await structures.clearAutoclear();
  }
  const tables = await readTopTables(file.node, header);
  const { fields } = header;
  return openQcow2Node({
    ...tables,
    label: path,
    version: fields.version,
    clusterBits: fields.clusterBits,
    refcountOrder: fields.refcountOrder,
    readOnly: context.readOnly,
    size: virtualSizeOf(header),
    corrupt: structures.info().corrupt === true,
    node: context.node,
    file,
    structures,
    reportCorruption: (message) => context.reportCorruption?.({ message, fatal: true }),
  });
}

/** Refcounts are always kept exact here, which lazy refcounts allow; version 2 has none. */
function requireLazyRefcounts(header: Qcow2Header, options: Qcow2Options): void {
  if (options['lazy-refcounts'] !== true || header.fields.version >= 3) return;
  throw new BlockError(
    'invalid-option',
    'Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level ' +
      `(version ${header.fields.version})`,
  );
}

function withPath(error: unknown, path: string): unknown {
  if (!(error instanceof BlockError) || error.context.path !== undefined) return error;
  return new BlockError(error.kind, error.message, { ...error.context, path, cause: error });
}
