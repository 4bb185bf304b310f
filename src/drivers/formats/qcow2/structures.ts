// SPDX-License-Identifier: Apache-2.0
// The header side of an open image, as the data path uses it: patches, backing link, check, info.
//
// Every write to cluster 0 goes through one queue and is built from the header as it is when its
// turn comes, so that a field patch and a backing change never undo each other.

import {
  BlockError,
  errnoText,
  hasAny,
  orBits,
  toBlockError,
  Turns,
  withoutBits,
} from '../../../base/index.js';
import type { Bits64 } from '../../../base/index.js';
import { readRequest, writeRequest } from '../../../block/index.js';
import type {
  BackingLink,
  CheckResult,
  Child,
  DriverInfo,
  Node,
} from '../../../block/index.js';
import type { BitmapFacts } from './bitmaps/index.js';
import { checkImage } from './check/index.js';
import type { CryptHeader } from './encryption/index.js';
import type { BitmapsPlace, Qcow2Header } from './header.js';
import {
  decodeHeader,
  decodeHeaderFields,
  encodeHeaderFields,
  HEADER_PEEK_BYTES,
} from './header.js';
import { planBitmapsSwitch } from './header-switch.js';
import {
  buildFirstSector,
  planBackingChange,
  planDataFileChange,
  planVersionChange,
} from './header-update.js';
import type { BackingChange } from './header-update.js';
import { infoOf } from './info.js';
import {
  BITMAPS_BIT,
  CORRUPT_BIT,
  DIRTY_BIT,
  LAZY_REFCOUNTS_BIT,
  RAW_DATA_FILE_BIT,
  SECTOR_SIZE,
} from './layout.js';
import type { DataFileChange, HeaderPatch, Structures, TopTables } from './metadata/index.js';
import { readSnapshotTable } from './snapshot-table.js';

export class Qcow2Structures implements Structures {
  readonly #file: Pick<Child, 'node'>;
  onUnsure: (wayBack: () => Promise<void>) => void = () => undefined;
  readonly #repairs: boolean;
  /** Of an image encrypted with LUKS: the clusters with its header, and what that says. */
  crypt: CryptHeader | null = null;
  #header: Qcow2Header;
  /** Writes of cluster 0. */
  readonly #turns = new Turns();

  constructor(file: Pick<Child, 'node'>, header: Qcow2Header, { repairs = false } = {}) {
    this.#file = file;
    this.#header = header;
    this.#repairs = repairs;
  }

  get header(): Qcow2Header {
    return this.#header;
  }

  patchHeader(patch: HeaderPatch): Promise<void> {
    return this.#turns.run(async () => {
      const fields = patched(this.#header.fields, patch);
      await this.#file.node.write(writeRequest(0, encodeHeaderFields(fields)));
      this.#header = { ...this.#header, fields };
    });
  }

  /** On opening read-write: what this program does not keep true is not claimed any more. */
  async clearAutoclear(): Promise<void> {
    const bits = this.autoclearLeft();
    if (!hasAny(bits, bits)) return;
    await this.#turns.run(async () => {
      const { autoclearFeatures: before } = this.#header.fields;
      const autoclearFeatures = withoutBits(before, this.autoclearLeft());
      const fields = { ...this.#header.fields, autoclearFeatures };
      await this.#file.node.write(writeRequest(0, encodeHeaderFields(fields)));
      await this.#file.node.flush();
      this.#header = { ...this.#header, fields };
    });
  }

  /** Autoclear bits that are not kept true: all but those of bitmaps or a data file there. */
  autoclearLeft(): Bits64 {
    const { bitmaps, fields, geometry } = this.#header;
    let bits = fields.autoclearFeatures;
    if (bitmaps !== null) bits = withoutBits(bits, BITMAPS_BIT);
    return geometry.dataFile ? withoutBits(bits, RAW_DATA_FILE_BIT) : bits;
  }

  /** Names another bitmap directory, whose contents are on stable storage; durable as it ends. */
  changeBitmaps(place: BitmapsPlace | null): Promise<void> {
    return this.#turns.run(async () => {
      const { node } = this.#file;
      const cluster0 = await readCluster0(node, this.#header.geometry.clusterSize);
      const { header, steps } = planBitmapsSwitch(this.#header, cluster0, place);
      await node.flush();
      for (const step of steps) {
        for (const { offset, bytes } of step) await node.write(writeRequest(offset, bytes));
        await node.flush();
      }
      this.#header = header;
    });
  }

  /** Takes bitmaps out of the header that are not trusted; they stay where that is not safe. */
  async dropStaleBitmaps(): Promise<void> {
    try {
      await this.changeBitmaps(null);
    } catch (error) {
      if (!(error instanceof BlockError) || error.kind !== 'no-space') throw error;
    }
  }

  backingLink(): BackingLink | null {
    const { backingFile, backingFormat } = this.#header;
    return backingFile === null ? null : { file: backingFile, format: backingFormat };
  }

  /**
   * Switches the backing link; durable when it resolves. What the new link exposes must have
   * been flushed before. Kind `no-space` when it cannot be done atomically, with nothing changed.
   */
  changeBacking(link: BackingLink | null): Promise<void> {
    return this.#rewrite((header, cluster0) => planBackingChange(header, cluster0, link));
  }

  changeVersion(version: 2 | 3): Promise<void> {
    return this.#rewrite((header, cluster0) => planVersionChange(header, cluster0, version));
  }

  changeDataFile(change: DataFileChange): Promise<void> {
    return this.#rewrite((header, cluster0) => planDataFileChange(header, cluster0, change));
  }

  #rewrite(
    plan: (header: Qcow2Header, cluster0: Uint8Array) => BackingChange,
  ): Promise<void> {
    return this.#turns.run(async () => {
      const cluster0 = await readCluster0(this.#file.node, this.#header.geometry.clusterSize);
      const change = plan(this.#header, cluster0);
      if (change.name !== null) {
        await this.#file.node.write(writeRequest(change.name.offset, change.name.bytes));
      }
      await this.#file.node.flush();
      const sector = buildFirstSector(cluster0, change);
      try {
        await this.#writeSector(sector);
        this.#header = change.header;
      } catch (error) {
        await this.#putBack(cluster0.slice(0, SECTOR_SIZE));
        throw error;
      }
    });
  }

  async #writeSector(sector: Uint8Array): Promise<void> {
    await this.#file.node.write(writeRequest(0, sector));
    await this.#file.node.flush();
  }

  /** The first sector as it was; where that fails as well, it is due before anything else. */
  async #putBack(sector: Uint8Array): Promise<void> {
    try {
      await this.#writeSector(sector);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.onUnsure(() => this.#turns.run(() => this.#writeSector(sector)));
    }
  }

  check(repair: 'none' | 'leaks' | 'all'): Promise<CheckResult> {
    const patch = (fields: HeaderPatch): Promise<void> => this.patchHeader(fields);
    return checkImage(
      this.#file,
      this.#header,
      repair === 'none' ? repair : { mode: repair, patch },
    );
  }

  info(bitmaps: readonly BitmapFacts[] = []): DriverInfo {
    return infoOf(this.#header, { snapshots: [], bitmaps, luks: this.crypt?.header ?? null });
  }

  async reload(): Promise<TopTables> {
    this.#header = await inspectHeader(this.#file.node);
    if (!this.#repairs) requireTables(this.#header);
    return readTopTables(this.#file.node, this.#header, this.#repairs);
  }
}

function patched(fields: Qcow2Header['fields'], patch: HeaderPatch): Qcow2Header['fields'] {
  let bits = fields.incompatibleFeatures;
  bits = withFlag(bits, CORRUPT_BIT, patch.corrupt);
  bits = withFlag(bits, DIRTY_BIT, patch.dirty);
  return {
    ...fields,
    incompatibleFeatures: bits,
    size: patch.size ?? fields.size,
    l1TableOffset: patch.l1Offset ?? fields.l1TableOffset,
    l1Size: patch.l1Entries ?? fields.l1Size,
    refcountTableOffset: patch.refcountTableOffset ?? fields.refcountTableOffset,
    refcountTableClusters: patch.refcountTableClusters ?? fields.refcountTableClusters,
    refcountOrder: patch.refcountOrder ?? fields.refcountOrder,
    compatibleFeatures: withFlag(
      fields.compatibleFeatures,
      LAZY_REFCOUNTS_BIT,
      patch.lazyRefcounts,
    ),
    nbSnapshots: patch.nbSnapshots ?? fields.nbSnapshots,
    snapshotsOffset: patch.snapshotsOffset ?? fields.snapshotsOffset,
  };
}

function withFlag(bits: Bits64, flag: Bits64, on: boolean | undefined): Bits64 {
  if (on === undefined) return bits;
  return on ? orBits(bits, flag) : withoutBits(bits, flag);
}

/** The first cluster, zero padded where the file is shorter. */
async function readCluster0(file: Node, clusterSize: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(clusterSize);
  const there = Math.min(clusterSize, file.length);
  await file.read(readRequest(0, bytes.subarray(0, there)));
  return bytes;
}

/** Reads and checks cluster 0; refuses tables that the file ends before. */
export async function readHeader(file: Node): Promise<Qcow2Header> {
  const header = await inspectHeader(file);
  requireTables(header);
  return header;
}

/** The top-level tables are all within the file. */
export function requireTables(header: Qcow2Header): void {
  if (header.truncated !== null) throw new BlockError('corrupt-image', header.truncated);
}

/** Reads and checks cluster 0; the file may end before the tables. */
export async function inspectHeader(file: Node): Promise<Qcow2Header> {
  const length = file.length;
  const peek = new Uint8Array(HEADER_PEEK_BYTES);
  try {
    await file.read(readRequest(0, peek.subarray(0, Math.min(length, peek.length))));
  } catch (error) {
    const { kind, errno } = toBlockError(error);
    const text = `Could not read qcow2 header: ${errnoText(errno)}`;
    throw new BlockError(kind, text, { errno, cause: error });
  }
  const { geometry } = decodeHeaderFields(peek);
  const head = new Uint8Array(Math.max(HEADER_PEEK_BYTES, Math.min(length, geometry.clusterSize)));
  await file.read(readRequest(0, head.subarray(0, Math.min(length, head.length))));
  return decodeHeader(head, length);
}

/** The L1, refcount and snapshot tables of a checked header; to repair: what is there of them. */
export async function readTopTables(
  file: Node,
  header: Qcow2Header,
  repairs = false,
): Promise<TopTables> {
  const { fields, geometry } = header;
  const l1 = new Uint8Array(fields.l1Size * 8);
  const refcountTable = new Uint8Array(fields.refcountTableClusters * geometry.clusterSize);
  if (l1.length > 0) await file.read(readRequest(fields.l1TableOffset, l1));
  await file.driverNode.debugEvent?.('reftable_load', true);
  const there = Math.max(0, file.length - fields.refcountTableOffset);
  const found = repairs ? refcountTable.subarray(0, there) : refcountTable;
  if (found.length > 0) await file.read(readRequest(fields.refcountTableOffset, found));
  const snapshots = await readSnapshotTable(file, header, { isLenient: repairs });
  return {
    l1Offset: fields.l1TableOffset,
    l1,
    refcountTableOffset: fields.refcountTableOffset,
    refcountTable,
    snapshots: { ...snapshots, offset: snapshots.length > 0 ? fields.snapshotsOffset : 0 },
  };
}
