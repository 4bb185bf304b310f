// SPDX-License-Identifier: Apache-2.0
// What whoever opens an image chooses, and may choose anew in a reopen: which structures writes
// are checked against, which discards go down to the file, how much metadata is kept in memory.
//
// The four overlap modes are sets of structures; each of them can be put in or left out by itself.

import { QCOW2_LIMITS } from '../../../../base/index.js';

/** Structures that a write is checked against, as bits of a set. */
export const Guarded = {
  mainHeader: 0x1,
  activeL1: 0x2,
  activeL2: 0x4,
  refcountTable: 0x8,
  refcountBlock: 0x10,
  snapshotTable: 0x20,
  inactiveL1: 0x40,
  inactiveL2: 0x80,
  bitmapDirectory: 0x100,
} as const;

/** Found without reading anything, however large the image is. */
const CONSTANT =
  Guarded.mainHeader |
  Guarded.activeL1 |
  Guarded.refcountTable |
  Guarded.snapshotTable |
  Guarded.bitmapDirectory;
/** What is in memory anyway. */
const CACHED = CONSTANT | Guarded.activeL2 | Guarded.refcountBlock | Guarded.inactiveL1;

export const OVERLAP_MODES = {
  none: 0,
  constant: CONSTANT,
  cached: CACHED,
  all: CACHED | Guarded.inactiveL2,
} as const;

export interface Policies {
  /** Set of `Guarded`. */
  readonly guarded: number;
  /** Discards of guest requests go down to the file. */
  readonly passDiscardRequest: boolean;
  /** Clusters that snapshots alone used are discarded in the file. */
  readonly passDiscardSnapshot: boolean;
  /** Clusters freed for other reasons are discarded in the file. */
  readonly passDiscardOther: boolean;
  /** Bytes of clean tables that are kept. */
  readonly l2CacheBytes: number;
  /** Of an L2 table so much is written at once where something in it changed; a power of two. */
  readonly l2PieceBytes: number;
  readonly refcountCacheBytes: number;
  /** Tables that nobody used for so long are given up; 0: they are kept. */
  readonly cleanIntervalMs: number;
}

export const DEFAULT_POLICIES: Policies = {
  guarded: OVERLAP_MODES.cached,
  passDiscardRequest: true,
  passDiscardSnapshot: true,
  passDiscardOther: false,
  l2CacheBytes: QCOW2_LIMITS.l2CacheBytes,
  l2PieceBytes: QCOW2_LIMITS.l2PieceBytes,
  refcountCacheBytes: QCOW2_LIMITS.refcountCacheBytes,
  cleanIntervalMs: 0,
};
