// SPDX-License-Identifier: Apache-2.0
// Opening a qcow2 image: header, refusals by name, top-level tables, then the data path.
//
// Opened only to look, nothing is written and an unsupported feature is reported instead of
// refused (inspect.ts). Opened read-write, unknown autoclear bits are cleared before anything
// else is written. Errors carry the path of the image file.

import { BlockError, hasBit } from '../../../base/index.js';
import type { DriverNode, OpenContext } from '../../../block/index.js';
import { loadCodec } from '../../../codec/index.js';
import { readBitmaps } from './bitmaps/index.js';
import { checkCacheOptions } from './cache-options.js';
import { dataFileOf } from './data-file.js';
import {
  encryptionOf,
  isKeyOf,
  keyslotsOf,
  readCryptHeader,
  requireFormat,
  unlock,
} from './encryption/index.js';
import type { CryptHeader } from './encryption/index.js';
import { requireWritable } from './features.js';
import { codecOf, virtualSizeOf } from './header.js';
import type { Qcow2Header } from './header.js';
import { InspectedQcow2 } from './inspect.js';
import { Compatible, ExtensionType } from './layout.js';
import type { DataCipher, EncryptionFormat, ImageOptions } from './metadata/index.js';
import { Qcow2Node } from './node.js';
import type { Qcow2Options } from './options.js';
import { policiesOf } from './policies.js';
import { guardInactiveL2 } from './snapshots/index.js';
import { factsOf, readSnapshotTable } from './snapshot-table.js';
import { inspectHeader, Qcow2Structures, readTopTables, requireTables } from './structures.js';

export async function openQcow2(
  context: OpenContext,
  options: Qcow2Options,
): Promise<DriverNode> {
  const path = context.child('file').node.filename;
  try {
    return await openImage(context, options, { path, current: null });
  } catch (error) {
    throw withPath(error, path);
  }
}

/** All is flushed; another instance is read from the file only where access or file change. */
async function reopenQcow2(
  current: Qcow2Node,
  context: OpenContext,
  options: Qcow2Options,
): Promise<DriverNode> {
  const file = context.child('file');
  const stays = file === context.node.children.get('file');
  const path = file.node.filename;
  try {
    if (!stays || context.readOnly !== current.image.readOnly) {
      return await openImage(context, options, { path, current });
    }
    checkOptions(options, current.image, current.image.cipher?.format ?? null);
    const { headerIsLazy, lazyRefcounts } = current.image;
    if ((options['lazy-refcounts'] ?? headerIsLazy) !== lazyRefcounts) {
      return await openImage(context, options, { path, current });
    }
    const { guarded } = policiesOf(options, current.image);
    await guardInactiveL2(current.image, guarded);
    return current;
  } catch (error) {
    throw withPath(error, path);
  }
}

interface ImagePlace {
  readonly path: string;
  /** The instance that is to be replaced; nothing is written while it serves. */
  readonly current: Qcow2Node | null;
}

async function openImage(
  context: OpenContext,
  options: Qcow2Options,
  { path, current }: ImagePlace,
): Promise<DriverNode> {
  const file = context.child('file');
  const header = await inspectHeader(file.node);
  const { cryptHeader } = header;
  const crypt = cryptHeader === null ? null : await readCryptHeader(file, cryptHeader);
  if (context.inspectOnly && mustBeInspected(context, header)) {
    const snapshots = (await readSnapshotTable(file.node, header)).snapshots.map(factsOf);
    const bitmaps = await readBitmaps(file.node, header);
    const luks = crypt?.header ?? null;
    return new InspectedQcow2(file, header, { snapshots, bitmaps, luks });
  }
  const repairs = context.repairs === true;
  if (!repairs || !header.lacksRefcounts) requireTables(header);
  checkOptions(options, { ...header.fields, geometry: header.geometry }, encryptionOf(header));
  const dataFile = await dataFileOf(context, header);
  if (current === null) warnOfBitmaps(context, header);
  const structures = new Qcow2Structures(file, header, { repairs });
  structures.crypt = crypt;
  if (!context.readOnly) {
    if (!repairs) requireWritable(header, { path });
    else await structures.clearAutoclear();
  }
  const tables = await readTopTables(file.node, header, repairs);
  await loadCodec(codecOf(header));
  const cipher = await keptOrUnlocked(context, { header, crypt, options }, current);
  const imageOptions = {
    ...tables,
    ...factsOfImage(header, options),
    label: path,
    readOnly: context.readOnly,
    corrupt: structures.info().corrupt === true || current?.image.corrupt === true,
    node: context.node,
    file,
    dataFile,
    cipher,
    structures,
    clock: context.host.clock,
    reportCorruption: (report) => context.reportCorruption?.(report),
  } satisfies ImageOptions;
  // The node lets go of it when it is closed.
  cipher?.hold();
  try {
    return await nodeOf(context, imageOptions, { header, crypt, options, current });
  } catch (error) {
    cipher?.release();
    throw error;
  }
}

async function nodeOf(
  context: OpenContext,
  imageOptions: ImageOptions & { readonly structures: Qcow2Structures },
  { header, crypt, options, current }: {
    readonly header: Qcow2Header;
    readonly crypt: CryptHeader | null;
    readonly options: Qcow2Options;
    readonly current: Qcow2Node | null;
  },
): Promise<DriverNode> {
  const { structures } = imageOptions;
  const repairs = context.repairs === true;
  const node = new Qcow2Node(imageOptions, reopenQcow2);
  const { encrypt } = options;
  if (crypt !== null && encrypt !== undefined) {
    const isKept = imageOptions.cipher === current?.image.cipher;
    const before = isKept ? current?.keyslots?.openedWith : undefined;
    const openedWith = before ?? encrypt['key-secret'] ?? '';
    node.keyslots = keyslotsOf(context, { crypt, openedWith }, encrypt);
  }
  await guardInactiveL2(node.image, node.image.policies.guarded);
  await node.loadBitmaps(context.node, {
    header: {
      get place() {
        return structures.header.bitmaps;
      },
      change: (place) => structures.changeBitmaps(place),
    },
    attach: !repairs,
  });
  if (context.readOnly || repairs) return node;
  node.makeDue(async () => {
    await structures.clearAutoclear();
    if (hasStaleBitmaps(header)) await structures.dropStaleBitmaps();
    await node.repairDirty((line) => context.tellFinding?.(line));
  });
  // All are writes, which are not due before the whole reopen is.
  if (current === null) await node.becameWritable();
  return node;
}

/** In the order of the reference. */
function checkOptions(
  options: Qcow2Options,
  image: Parameters<typeof checkCacheOptions>[1] & { readonly version: number },
  format: EncryptionFormat | null,
): void {
  checkCacheOptions(options, image);
  requireLazyRefcounts(image.version, options);
  requireFormat(format, options);
}

/** To look at it is all that can be done: some table is missing, or its data is not wanted. */
function mustBeInspected(context: OpenContext, header: Qcow2Header): boolean {
  if (header.truncated !== null) return true;
  if (context.noData !== true) return false;
  return header.geometry.dataFile || encryptionOf(header) !== null;
}

/** An image that is only reopened keeps its key, which takes long to get; another one does not. */
async function keptOrUnlocked(
  context: OpenContext,
  { options, ...image }: {
    readonly header: Qcow2Header;
    readonly crypt: CryptHeader | null;
    readonly options: Qcow2Options;
  },
  current: Qcow2Node | null,
): Promise<DataCipher | null> {
  const kept = current?.image.cipher ?? null;
  if (kept !== null && isKeyOf(kept, image.header, image.crypt)) return kept;
  return await unlock(context, image, options);
}

/** What header and options alone say of the image. */
function factsOfImage(header: Qcow2Header, options: Qcow2Options) {
  const { fields, geometry } = header;
  const size = virtualSizeOf(header);
  const headerIsLazy = hasBit(fields.compatibleFeatures, Compatible.lazyRefcounts);
  return {
    version: fields.version,
    clusterBits: fields.clusterBits,
    refcountOrder: fields.refcountOrder,
    extendedL2: geometry.l2EntryBytes === 16,
    codec: codecOf(header),
    size,
    dataFileRaw: header.dataFileRaw,
    headerIsLazy,
    lazyRefcounts: options['lazy-refcounts'] ?? headerIsLazy,
    policies: policiesOf(options, { geometry, size }),
  };
}

/** There are bitmaps that somebody has not kept. */
function hasStaleBitmaps({ extensions, bitmaps }: Qcow2Header): boolean {
  return bitmaps === null && extensions.some(({ type }) => type === ExtensionType.bitmaps);
}

/** They are left where they are, but not used any more. */
function warnOfBitmaps(context: OpenContext, header: Qcow2Header): void {
  if (!hasStaleBitmaps(header)) return;
  const act = header.fields.version < 3 ? 'may modify' : 'modified';
  context.warn?.(
    `a program lacking bitmap support ${act} this file, so all bitmaps are now considered ` +
      'inconsistent\nSome clusters may be leaked, ' +
      "run 'qemu-img check -r' on the image file to fix.",
  );
}

/** Version 2 has none. */
function requireLazyRefcounts(version: number, options: Qcow2Options): void {
  if (options['lazy-refcounts'] !== true || version >= 3) return;
  throw new BlockError(
    'invalid-option',
    'Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level',
  );
}

function withPath(error: unknown, path: string): unknown {
  if (!(error instanceof BlockError) || error.context.path !== undefined) return error;
  return new BlockError(error.kind, error.message, { ...error.context, path, cause: error });
}
