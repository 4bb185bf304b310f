// SPDX-License-Identifier: Apache-2.0
// Every queue, loop, depth and table size has its number here; all are upper bounds.

const KIB = 1024;
const MIB = 1024 * KIB;

/** Largest byte offset or size that is handled: 2^53 − 1, the safe integers. */
export const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

export const IO_LIMITS = {
  /** Reads and writes up to this many bytes run on the event loop. */
  inlineBytes: 128 * KIB,
  /** The event loop is yielded to after this many bytes or operations of inline work. */
  yieldBytes: 256 * KIB,
  yieldOperations: 64,
  /** A buffered write slower than this sends its file to the asynchronous path for a while. */
  slowWriteMs: 5,
  slowWritePenaltyMs: 1000,
  /** The pipeline splits requests larger than this. */
  maxTransfer: 64 * MIB,
  requestsPerNode: 128,
} as const;

export const COPY_LIMITS = {
  /** A lane reads and writes this many bytes at a time: what fits a core's cache. */
  chunkBytes: MIB,
  /** Two of these are compared at a time. */
  compareChunkBytes: 128 * KIB,
  batchMinBytes: 256 * KIB,
  /** Where nothing asks for more or less: what fits a processor's cache. */
  batchBytes: 4 * MIB,
  /** The same where clusters are compressed, whose outcomes are kept in memory. */
  compressedBatchBytes: 2 * MIB,
  batchMaxBytes: 4 * MIB,
  /** A user may ask for copy units of so many bytes: a batch is one unit at least. */
  unitMaxBytes: 64 * MIB,
  batchesPerJob: 16,
  /** Ranges of a sparse image that go together in one batch. */
  batchRuns: 32,
  /** Zeroes are handled in ranges of at most this many bytes. */
  zeroRangeBytes: 1024 * MIB,
  /** Runs of a block status that are walked over in one turn of the event loop. */
  scanSteps: 64,
  /** After so many discarded bytes a source is flushed, which makes room of them. */
  discardedBytes: 64 * MIB,
  /** One slice of the rate limiter, in milliseconds. */
  sliceMs: 100,
  laneMax: 4,
} as const;

export const DRAIN_LIMITS = {
  /** So many turns of the event loop a drained section gives running jobs to come to rest. */
  restTurns: 64,
} as const;

export const JOB_LIMITS = {
  /** At the end of the program one job's end is waited for so long before the next is cancelled. */
  exitMomentMs: 100,
} as const;

export const IMAGE_LIMITS = {
  qcow2L1Bytes: 32 * MIB,
  qcow2RefcountTableBytes: 8 * MIB,
  qcow2Snapshots: 65_536,
  /** Bytes of a snapshot table entry that are not fixed fields, ID or name. */
  qcow2SnapshotExtraBytes: 1024,
  /** Bytes of the LUKS header of an encrypted image with its key material. */
  qcow2CryptHeaderBytes: 16 * MIB,
  qcow2Bitmaps: 65_535,
  /** Bytes of the bitmap directory: 1024 for each bitmap. */
  qcow2BitmapDirectoryBytes: 1024 * 65_535,
  /** Bytes of the bits of one bitmap as stored, and entries of its table. */
  qcow2BitmapBytes: 512 * MIB,
  qcow2BitmapTableEntries: 2 ** 27,
  /** Bytes of tables, and of clusters with bits of both kinds, that all bitmaps may have. */
  qcow2BitmapTableBytes: 32 * MIB,
  qcow2BitmapLoadedBytes: 128 * MIB,
  qcow2HeaderExtensions: 256,
  /** Bytes of a snapshot table or bitmap directory that are looked at. */
  qcow2ListBytes: 64 * MIB,
  backingNameBytes: 1023,
  backingFormatBytes: 15,
  /** Findings of a check that are worded; further ones are only counted. */
  checkMessages: 10_000,
  /** Bytes of refcount blocks that a check keeps at hand. */
  checkBlockBytes: 32 * MIB,
  /** Bytes of the L1 tables of snapshots, each counted once, that a check goes through. */
  checkSnapshotL1Bytes: 4096 * MIB,
  /** Bytes, and 16 KiB for each table, that a check reads of tables without an entry. */
  checkEmptyTableBytes: 1024 * MIB,
  /** What reading an empty table costs beside its bytes. */
  emptyTableCost: 16 * KIB,
  /** The kernel may read as much ahead of a table: so much of the way to the next one counts. */
  emptyTableReadAhead: MIB,
  /** Bytes of empty tables and the ways between them that are read without a look at the file. */
  emptyTableFarBytes: 4096 * MIB,
  /** Clusters past the end of a file that something names, which a repair leaves free. */
  checkBeyondClusters: 131_072,
  backingChainDepth: 200,
  /** Parts of the name of an option on a command line. */
  optionDepth: 64,
  probeBytes: 2048,
  /** Nesting of objects in a `json:` name. */
  jsonNameDepth: 16,
} as const;

export const CRYPTO_LIMITS = {
  /** Of one encryption header with all its key material, where it is held in memory. */
  headerAreaBytes: 64 * MIB,
  /** What unlocking one image may take unless its user says otherwise. */
  derivationSeconds: 60,
  /** Of a file that a secret is read from. */
  secretFileBytes: MIB,
  /** Derivations that run at the same time: most threads of the pool are for files. */
  parallelDerivations: 2,
  /** Digests of a derivation, in pairs, that take less than a second on any machine. */
  shortDerivation: 200_000,
  /** A derivation that cannot be stopped takes no longer, as far as can be told before. */
  uncancellableMs: 1000,
  /** Memory that one derivation by Argon2 may take, and parts that it may be cut into. */
  argonBytes: 1024 * MIB,
  argonLanes: 64,
  /** Lists, objects and what follows a comma in a header's JSON text; usual ones have hundreds. */
  luks2Members: 64 * KIB,
} as const;

export const CODEC_LIMITS = {
  /** Largest window that a zstd frame may ask its decoder for: what RFC 8878 wants supported. */
  zstdWindowBytes: 8 * MIB,
} as const;

export const QCOW2_LIMITS = {
  /** Refcount blocks that are held at once while snapshots change. */
  snapshotRefcountBytes: 192 * MIB,
  /**
   * Clean L2 tables and refcount blocks kept in memory, per image; never fewer than four tables.
   */
  l2CacheBytes: 32 * MIB,
  refcountCacheBytes: 8 * MIB,
  /** What is written at once of an L2 table that changed. */
  l2PieceBytes: 64 * 1024,
  /** Tables that nobody used for so long are given up; options change it. */
  cleanIntervalSeconds: 600,
  /** L1 tables of snapshots that are read to know their L2 tables. */
  inactiveL1Bytes: 256 * MIB,
  /** Up to so many L1 entries tables are read without asking first whether they lie in a hole. */
  manyTables: 65_536,
  /** Entries of L2 tables that are told again because other L1 entries name the same tables. */
  sharedTableEntries: 2 ** 24,
  /** Dirty L2 tables that make one whole metadata flush run. */
  dirtyTables: 1024,
  dirtyTableBytes: 16 * MIB,
  /** Adjacent tables go out in one write of at most this size. */
  tableWriteBytes: 4 * MIB,
  /** An allocating write up to this size is joined with its copied head and tail. */
  joinedWriteBytes: 1 * MIB,
  /** Parts of one request that are read or written at the same time. */
  parallelRuns: 16,
  /** Zeroes written at a time where the format cannot say them. */
  zeroWriteBytes: 1 * MIB,
} as const;

export const THROTTLE_LIMITS = {
  /** Largest rate, in bytes or operations for each second. */
  rateMax: 1e15,
  burstLengthMax: 2 ** 32 - 1,
  /** A timer is set again after so many milliseconds at the latest. */
  longestTimerMs: 60_000,
  /** Shorter waits are none: a clock counts in steps of this order. */
  shortestWaitMs: 0.001,
} as const;

export const BLKDEBUG_LIMITS = {
  /** Bytes of a file of rules. */
  configBytes: MIB,
} as const;

export const BLKLOGWRITES_LIMITS = {
  /** Sectors of a log are smaller than this. */
  sectorBytes: 16 * MIB,
  /** Zeroes are logged in writes of at most this size. */
  zeroBytes: 1 * MIB,
} as const;

export const CLOCK_LIMITS = {
  /** The longest delay that a timer of the system takes: 2^31 − 1. */
  longestTimerMs: 2_147_483_647,
} as const;

export const GRAPH_LIMITS = {
  /** Children of one list of a node. */
  listedChildren: 1024,
  /** Names given to children of a list, over the time of a node. */
  listedChildNames: 2 ** 32 - 1,
} as const;

export const NAME_LIMITS = {
  nodeNameBytes: 31,
  bitmapNameBytes: 1023,
} as const;

export const QMP_LIMITS = {
  jsonDepth: 1024,
  jsonMessageBytes: 16 * MIB,
  jsonTokens: 512 * KIB,
  /** In-band commands queued per session before reading stops. */
  queuedCommands: 8,
  /** Bytes of answers to broken messages that are sent together. */
  refusalBytes: 64 * KIB,
  /** Bytes of unsent answers and events per session before it is closed as too slow. */
  unsentBytes: 64 * MIB,
  /** Events that a client's reader may leave unread before its reading fails. */
  clientEvents: 65_536,
  /** States of a job that its handle keeps for readers that come later. */
  clientJobStates: 1024,
  /** How long a closing server waits for a client to take what it was sent. */
  farewellMs: 1000,
} as const;

export const CHARDEV_LIMITS = {
  /** Clients of a socket that may wait until somebody speaks to them. */
  waitingClients: 16,
  /** Of all ring buffers together. */
  ringBytes: 64 * MIB,
  devices: 1024,
  /** Seconds between two attempts to connect. */
  reconnectSeconds: 86_400,
} as const;

export const BITMAP_LIMITS = {
  minGranularity: 512,
  maxGranularity: 2 ** 31,
  /** Bits of one bitmap: 32 TiB at 512 bytes each. */
  bits: 2 ** 36,
  /** Bytes of bits that are hashed before others have a turn. */
  hashedAtOnce: 4 * MIB,
} as const;
