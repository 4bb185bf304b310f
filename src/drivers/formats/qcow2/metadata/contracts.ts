// SPDX-License-Identifier: Apache-2.0
// What an open image is made of, and what it asks of the header side of the driver. Types alone.

import type { Clock } from '../../../../base/index.js';
import type {
  BackingLink,
  CheckResult,
  Child,
  CorruptionReport,
  DriverInfo,
  Node,
} from '../../../../block/index.js';
import type { ClusterCodec } from '../../../../codec/index.js';
import type { BitmapFacts } from '../bitmaps/directory.js';
import type { Qcow2Header } from '../header.js';
import type { SnapshotTable } from '../snapshot-table.js';
import type { DataCipher } from './data-cipher.js';
import type { Policies } from './policies.js';

/** Fields of the header's first sector that the data path changes, all in one write. */
export interface HeaderPatch {
  readonly size?: number;
  readonly l1Offset?: number;
  readonly l1Entries?: number;
  readonly refcountTableOffset?: number;
  readonly refcountTableClusters?: number;
  readonly nbSnapshots?: number;
  readonly snapshotsOffset?: number;
  readonly corrupt?: boolean;
  readonly refcountOrder?: number;
  readonly lazyRefcounts?: boolean;
  readonly dirty?: boolean;
}

/** The top-level tables as they are on disk. */
export interface TopTables {
  readonly l1Offset: number;
  /** Exactly 8 bytes for each L1 entry. */
  readonly l1: Uint8Array;
  readonly refcountTableOffset: number;
  /** Whole clusters. */
  readonly refcountTable: Uint8Array;
  readonly snapshots: PlacedSnapshots;
}

/** The snapshot table and where it lies; offset 0 without snapshots. */
export interface PlacedSnapshots extends SnapshotTable {
  readonly offset: number;
}

export interface DataFileChange {
  readonly name: string | null;
  readonly dropsRaw: boolean;
}

/** What the header side of the driver does for the data path. */
export interface Structures {
  /** Called where a failed change may be on disk, with what makes it undone. */
  onUnsure: (wayBack: () => Promise<void>) => void;
  readonly header: Qcow2Header;
  /** Durable; the tables must hold nothing that the other version does not know. */
  changeVersion(version: 2 | 3): Promise<void>;
  /** Another name (null: the same one), and that the file need not be read as raw; durable. */
  changeDataFile(change: DataFileChange): Promise<void>;
  /** One write of the header's first sector; does not sync. */
  patchHeader(patch: HeaderPatch): Promise<void>;
  backingLink(): BackingLink | null;
  changeBacking(link: BackingLink | null): Promise<void>;
  /** Called with everything flushed and no request running. */
  check(repair: 'none' | 'leaks' | 'all'): Promise<CheckResult>;
  /** `bitmaps`: the persistent ones, as queries list them. */
  info(bitmaps?: readonly BitmapFacts[]): DriverInfo;
  /** Reads the header and both top-level tables again after a repair. */
  reload(): Promise<TopTables>;
}

export interface ImageOptions extends TopTables {
  /** File name as messages give it. */
  readonly label: string;
  readonly version: number;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  /** L2 entries have bitmaps of subclusters; default false. */
  readonly extendedL2?: boolean;
  /** Of compressed clusters, loaded already; default deflate. */
  readonly codec?: ClusterCodec;
  readonly readOnly: boolean;
  /** Virtual size in bytes. */
  readonly size: number;
  readonly corrupt: boolean;
  /** The dirty bit stands while refcounts change; default false. */
  readonly lazyRefcounts?: boolean;
  /** The header asks for that; default false. */
  readonly headerIsLazy?: boolean;
  /** Told once, when the image is found corrupt. */
  readonly reportCorruption?: (report: CorruptionReport) => void;
  readonly policies?: Policies;
  /** For giving up tables that nobody uses; without one they are kept. */
  readonly clock?: Clock;
  /** The node being opened: its backing child is looked up there each time. */
  readonly node: Pick<Node, 'backing' | 'name'>;
  readonly file: Pick<Child, 'node'>;
  /** Where guest data lies at its guest offset; absent or null: in clusters of `file`. */
  readonly dataFile?: Pick<Child, 'node'> | null;
  /** The data file holds what the guest sees, zeroes as well. */
  readonly dataFileRaw?: boolean;
  /** Of guest data; absent or null: it is stored as it is. */
  readonly cipher?: DataCipher | null;
  readonly structures: Structures;
}

/** Sees L2 entries change, so that a reservation knows what it lost. */
export interface EntryWatcher {
  /** Guest clusters, `end` exclusive. */
  entriesChanged(first: number, end: number): void;
}
