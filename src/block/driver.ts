// SPDX-License-Identifier: Apache-2.0
// What a driver is: one object per format, protocol or filter, and what its open() returns.
//
// The pipeline (pipeline.ts) stands in front of every DriverNode: it has checked state, range,
// alignment, permission and flags, so a driver works only on valid, aligned requests. What a
// driver does not do is passed to its child or emulated in one place, fallbacks.ts, as `supports`
// says. All data methods are synchronous first (base/settle.ts).

import type { Eventually, PermissionPair } from '../base/index.js';
import type { ClusterCodec } from '../codec/index.js';
import type { Host, HostFile } from '../host/index.js';
import type { BlockStatus, StatusRuns } from './block-status.js';
import type { Child } from './child.js';
import type { Extent, Lease, TargetReservation } from './extent.js';
import type { Node } from './node.js';
import type { Request } from './request.js';
import type { SecretSource } from './open/secret.js';
import type { SnapshotView } from './snapshot-view.js';
import type { ThrottleGroup } from './throttle/index.js';

/** How a driver answers an operation; `pass` hands it to the filtered or primary child. */
export type Support = 'native' | 'pass' | 'emulate' | 'none';

/** Every operation of a node: adding one breaks the build of each driver until it answers. */
export interface DriverSupports {
  readonly read: 'native' | 'pass';
  readonly write: Support;
  readonly writeZeroes: Support;
  readonly discard: Support;
  readonly flush: Support;
  readonly blockStatus: Support;
  readonly truncate: Support;
  /** Describe source data as ranges of host files for lanes. */
  readonly planExtents: Support;
  /** Reserve host ranges that lanes fill and that are linked afterwards. */
  readonly reserve: Support;
  readonly compressedWrite: Support;
  readonly changeBacking: Support;
  readonly check: Support;
}

/**
 * Role bits of an edge, the spelling of `x-debug-query-block-graph` aside: what the child holds
 * for its parent.
 */
export const ChildRole = {
  data: 1,
  metadata: 2,
  filtered: 4,
  cow: 8,
  primary: 16,
} as const;

export interface ChildDeclaration {
  readonly role: number;
  readonly required: boolean;
  /**
   * Default permissions on the child: what a format needs for its metadata, what the parents need
   * (filters), or what an overlay needs of its backing file. By default the role decides. `own`:
   * the open driver says, and before it is open nothing is asked.
   */
  readonly permissions?: 'format' | 'filter' | 'cow' | 'own';
}

/** Alignments and sizes that a node asks of its callers, in bytes; powers of two, 0 = no limit. */
export interface NodeLimits {
  readonly requestAlignment: number;
  readonly maxTransfer: number;
  /** Best size and alignment of zero and discard requests (the cluster size for qcow2). */
  readonly optimalZeroes: number;
  readonly optimalDiscard: number;
  /** Largest zero and discard request; absent or 0 = no limit. */
  readonly maxZeroes?: number;
  readonly maxDiscard?: number;
}

/** Name and format of a backing file as the image header gives them. */
export interface BackingLink {
  readonly file: string;
  /** Null when the header names none. */
  readonly format: string | null;
}

export interface TruncateOptions {
  /** Fail instead of rounding when the size does not fit the driver. */
  readonly exact: boolean;
  readonly preallocation: 'off' | 'metadata' | 'falloc' | 'full';
}

/** Counters of a check; the JSON names of `check --output=json` are made from them. */
export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  /** First byte after the last cluster in use. */
  readonly imageEndOffset: number;
  /** One line for each finding, in the order found, capped by the caller. */
  readonly messages: readonly string[];
  /** Why a repair was given up, with nothing changed. */
  readonly failure?: string;
}

/** One internal snapshot as info lists it. */
export interface SnapshotFacts {
  readonly id: string;
  readonly name: string;
  /** Bytes. */
  readonly vmStateSize: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockSeconds: number;
  readonly vmClockNanoseconds: number;
  readonly icount?: number;
}

/** A snapshot that is to be made; its ID is chosen by the driver. */
export interface NewSnapshot {
  readonly name: string;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** How long the machine has run. */
  readonly vmClockSeconds: number;
  readonly vmClockNanoseconds: number;
  /** Instructions that the machine has run, where they are counted. */
  readonly icount?: number;
}

/** Which of them is meant: the first of that ID and name. */
export type SnapshotKey = Pick<SnapshotFacts, 'id' | 'name'>;

/**
 * Snapshots that lie in the image itself. Each change is durable when it resolves, is called with
 * no request running, and leaves the image as it was when it rejects.
 */
export interface InternalSnapshots {
  /** This image cannot hold any although others of its format can. */
  readonly isRefused: boolean;
  readonly count: number;
  /** In the order of the image's table; all of them, or those from index `from` to before `end`. */
  list(from?: number, end?: number): readonly SnapshotFacts[];
  create(wish: NewSnapshot): Promise<SnapshotFacts>;
  remove(key: SnapshotKey): Promise<void>;
  /** The image is what it was when the snapshot was made, its size too. */
  apply(key: SnapshotKey): Promise<void>;
  /** Reads show the snapshot from now on; for nodes that are not written to. */
  show(key: SnapshotKey): Promise<void>;
}

/** The state of a machine beside its disk, in an address space of its own. */
export interface VmState {
  /** Where the format has it: behind the end of the disk, in bytes. */
  readonly offset: number;
  /** What was never written reads as zeroes, however far. */
  read(position: number, buffer: Uint8Array): Eventually<void>;
  /** As durable as a write to the disk; kind `too-large` where the format cannot reach it. */
  write(position: number, buffer: Uint8Array): Eventually<void>;
}

/** Facts for info and query-named-block-nodes. */
export interface DriverInfo {
  /** Bytes; absent when the driver has no clusters. */
  readonly clusterSize?: number;
  /** Null: not even that there is nothing to be dirty. */
  readonly dirty?: boolean | null;
  readonly corrupt?: boolean;
  readonly encrypted?: boolean;
  /** Of an image that is only looked at; else InternalSnapshots lists them. */
  readonly snapshots?: readonly SnapshotFacts[];
  /** Member `format-specific` as QMP prints it: `{type, data}`. */
  readonly specific?: { readonly type: string; readonly data: Readonly<Record<string, unknown>> };
}

/** Points of the data path at which requests are held until they are told to go on. */
export interface Breakpoints {
  /**
   * The next request that passes the event is held under the tag, once. Throws kind `not-found`
   * for an event that does not exist.
   */
  set(event: string, tag: string): void;
  /** Takes away what is set under the tag and lets go what it holds; false: nothing was set. */
  remove(tag: string): boolean;
  /** Lets the request go on that was held last under the tag; false when there is none. */
  resume(tag: string): boolean;
  isHolding(tag: string): boolean;
  /** Resolves once a request is held under the tag. */
  held(tag: string): Promise<void>;
}

export interface DiscardCounts {
  succeeded: number;
  failed: number;
  /** Of those that succeeded. */
  bytes: number;
}

/** Dirty bitmaps that a format keeps with the image. */
export interface BitmapStore {
  /** False for a version of the format that has none. */
  readonly keeps: boolean;
  /** Throws where one more could not be stored; `size` is that of the node in bytes. */
  requireRoom(bitmap: {
    readonly name: string;
    readonly granularity: number;
    readonly size: number;
  }): void;
  /** Takes one off the image, durably; nothing happens where none of that name is there. */
  remove(name: string): Promise<void>;
}

/** A driver's open instance, behind the pipeline of its Node. */
export interface DriverNode {
  /** Virtual size in bytes. */
  readonly length: number;
  readonly limits: NodeLimits;
  /** A write by a holder of the resize permission may go past the end and grows the node. */
  readonly growsOnWrite?: boolean;
  /** Opened read-only although more was asked (`auto-read-only`). */
  readonly readOnly?: boolean;
  /** Permissions wanted on a child, from what the node's own parents use and share. */
  childPermissions?(child: Child, parents: PermissionPair): PermissionPair;
  /** Called after a graph change with the cumulative permissions of the node (file locks). */
  setPermissions?(cumulative: PermissionPair): void;

  read?(request: Request): Eventually<void>;
  write?(request: Request): Eventually<void>;
  writeZeroes?(request: Request): Eventually<void>;
  discard?(request: Request): Eventually<void>;
  /** Brings everything acknowledged so far to stable storage, children included. */
  flush?(): Eventually<void>;
  /**
   * Status of this layer at `offset`; `exact` asks for zeroes to be told from data at some cost.
   */
  blockStatus?(offset: number, length: number, exact: boolean): Eventually<BlockStatus>;
  /** Many runs at once (see fillStatusRuns()); beside a native blockStatus. */
  statusRuns?(offset: number, length: number, runs: StatusRuns): Eventually<void>;
  /** What the function dataSpan() gives; of drivers that store bytes themselves. */
  dataSpan?(offset: number, length: number): number;
  truncate?(size: number, options: TruncateOptions): Eventually<void>;

  /**
   * Host ranges behind [offset, offset + length); covers all of it, in order; null = go through
   * read().
   */
  planExtents?(offset: number, length: number): Eventually<readonly Extent[] | null>;
  /** Held while ranges from planExtents are used: nothing freed meanwhile is reused or punched. */
  lease?(): Lease;
  /** Null = go through write(). */
  reserve?(offset: number, length: number): Eventually<TargetReservation | null>;
  /** Zeroes are as much work as any bytes: bulk copies write them in lanes. */
  readonly storesZeroes?: boolean;

  /** How writeDeflated() wants its clusters compressed; default deflate. */
  readonly clusterCodec?: ClusterCodec;
  /** Stores one whole cluster that was compressed already; called in guest order. */
  writeDeflated?(offset: number, payload: Uint8Array): Eventually<void>;

  /**
   * The parent passes a named point of its data path (`l2_update`, …; blkdebug's events). A parent
   * that can wait there says so, and does when a promise is given; otherwise the request that
   * comes next is held in its place.
   */
  debugEvent?(event: string, canWait: boolean): Eventually<void>;
  /** Present where points of the data path can be made to hold requests. */
  readonly breakpoints?: Breakpoints;

  /**
   * Of a node whose children are to hold the same: those that read as it does, and those that are
   * outvoted where they do not.
   */
  alike?(): { readonly same: readonly Node[]; readonly voting: readonly Node[] };

  /** Present where the format keeps snapshots within the image. */
  readonly internalSnapshots?: InternalSnapshots;

  /** Present where the format has room for the state of a machine. */
  readonly vmState?: VmState;

  /** Where a past state of the node can be read beside what it holds now. */
  readonly snapshotView?: SnapshotView;

  /**
   * Present where bitmaps can be persistent. The driver loads them when it is opened, and stores
   * those of its node in prepareReadOnly().
   */
  readonly bitmapStore?: BitmapStore;

  /** What the header says; null when the image has no backing file. */
  backingLink?(): BackingLink | null;
  /** Rewrites the header's backing link atomically and makes it durable. */
  changeBacking?(link: BackingLink | null): Promise<void>;
  check?(repair: 'none' | 'leaks' | 'all'): Promise<CheckResult>;
  /**
   * Changes what the image says of itself, all refusals first. Called while no other request runs;
   * absent where there is nothing to amend.
   */
  amend?(options: AmendOptions, context: AmendContext): Promise<void>;
  /**
   * Takes what amend() will need of other users, before anybody waits for it; the result, called
   * once after amend(), gives it back. Throws kind `permission` or `locked` with nothing taken.
   */
  beginAmend?(): () => void;
  /**
   * Drops everything that this layer holds, durably, so that the backing file shows. Called while
   * no other request runs; absent where a layer cannot be empty.
   */
  makeEmpty?(): Promise<void>;
  info?(): DriverInfo;
  /** Discards that this instance and those it took over from gave to the host. */
  readonly discards?: Readonly<DiscardCounts>;
  /** Host file of a protocol driver. */
  readonly hostFile?: HostFile;
  /**
   * Brings out everything that is held back. Called with every request drained, before a
   * read-write node is reopened and on a clean close.
   */
  prepareReadOnly?(): Promise<void>;
  /**
   * The instance that serves the node with other options: itself, or a new one that replaces it
   * and is closed if it does not. Called drained, after prepareReadOnly() of a read-write node.
   * `context` has flags and children as they are going to be; nothing may be written and no lock
   * be taken. Present where the driver names `reopenOptions`.
   */
  reopen?(context: OpenContext, options: Readonly<Record<string, unknown>>): Promise<DriverNode>;
  /**
   * A reopen has made this instance serve a read-write node, still drained: what an open writes
   * first is due now, and before the first change if it fails here. Locks are held.
   */
  becameWritable?(): Promise<void>;
  /** A reopen is in force, and these are the options now; nothing may be written. Never fails. */
  reopened?(options: Readonly<Record<string, unknown>>): void;
  /** In the turn in which it replaces `old` (or gives way to it again): locks come along. */
  takeOver?(old: DriverNode): void;
  /**
   * A drained section covers the node: requests that wait by the driver's own choice go on, and
   * later ones do not wait. Nests.
   */
  drainBegin?(): void;
  drainEnd?(): void;
  /**
   * The name of one more child of a list; throws where there can be none. Nothing is changed
   * before childAdded(). Present where children come and go (`x-blockdev-change`).
   */
  nextChildName?(): string;
  /** Throws where the child is needed. */
  requireDroppable?(child: Child): void;
  childAdded?(child: Child): void;
  /** The edge is gone already. */
  childDropped?(child: Child): void;
  /**
   * Work on children that a loss of permissions began, which the edges still allow; whoever took
   * the permissions away waits for it. Never fails.
   */
  readonly settling?: Promise<void> | null;
  /** Flushes what is left and lets go of everything; children are detached by the caller. */
  close(): Promise<void>;
}

/** By the names of `img amend -o`; what is absent stays as it is. */
export interface AmendOptions {
  readonly compat?: string;
  /** Bytes. */
  readonly size?: number;
  readonly backing_file?: string;
  readonly backing_fmt?: string;
  readonly lazy_refcounts?: boolean;
  readonly refcount_bits?: number;
  readonly data_file?: string;
  readonly data_file_raw?: boolean;
  /** Keyslots of LUKS, and below `encrypt.` those of an encrypted image. */
  readonly state?: string;
  readonly keyslot?: number;
  /** Ids of secrets. */
  readonly 'new-secret'?: string;
  readonly 'old-secret'?: string;
  readonly secret?: string;
  readonly 'iter-time'?: number;
  readonly [encryption: `encrypt.${string}`]: unknown;
}

export interface AmendContext {
  /** Asked for although it may lose access to the data. */
  readonly force: boolean;
  /** Resizes the node as its user would. */
  resize(size: number): Promise<void>;
  /** Units of work, which only grow towards `total`. */
  progress?(done: number, total: number): void;
  /** Looked at between steps; then amend() ends with kind `cancelled`. */
  isCancelled?(): boolean;
  /** Ends a derivation of a key that runs. */
  readonly signal?: AbortSignal;
}

/** What open() may use. Children that `children` declares are attached before open() is called. */
export interface OpenContext {
  readonly host: Host;
  /** The node being opened: its name, edges and flags. */
  readonly node: Node;
  readonly readOnly: boolean;
  /** Opened only to look (info, check without repair): nothing is written, not even flags. */
  readonly inspectOnly: boolean;
  /** Opened read-write to be repaired: marks of damage in it are no reason to refuse. */
  readonly repairs?: boolean;
  /** Opened without the children that hold nothing but guest data. */
  readonly noData?: boolean;
  child(name: string): Child;
  /**
   * Opens the host file of that path, whatever it looks like, as a declared child that no option
   * gave. Only while the node is opened for the first time.
   */
  openPlainChild?(name: string, path: string): Promise<Child>;
  /** The throttle-group object of that id, or null. */
  throttleGroup?(name: string): ThrottleGroup | null;
  readonly secret?: SecretSource;
  /** Ends a derivation of a key that runs, and with it the open. */
  readonly signal?: AbortSignal;
  findNode?(name: string): Node | null;
  /**
   * Keeps every link from this node down to `base` as it is until the result is
   * called; throws kind `busy` when one is kept already.
   */
  freezeChain?(base: Node): () => void;
  /** Sends an event of src/api/events.ts to whoever runs the graph. */
  emit?(event: string, data: Readonly<Record<string, unknown>>): void;
  /**
   * What childPermissions() answers is another now. Asked for more it may throw kind `permission`
   * or `locked`, with everything as it was.
   */
  permissionsChanged?(): void;
  /** Lines for people, what is wrong with the image and no reason to refuse it. */
  warn?(text: string): void;
  /** A line of a check that nobody asked for (see CheckResult.messages). */
  tellFinding?(line: string): void;
  /** Tells whoever runs the graph (the event BLOCK_IMAGE_CORRUPTED); changes nothing itself. */
  reportCorruption?(report: CorruptionReport): void;
}

/** A structure of an image was found to contradict itself or another. */
export interface CorruptionReport {
  readonly message: string;
  /** The image takes no more writes. */
  readonly fatal: boolean;
  /** Bytes in the image file, where they are known. */
  readonly offset?: number;
  readonly size?: number;
}

/**
 * The line in which a program tells of it, without its end. Scripts look for it in the output of
 * tools and of the daemon: it begins and is worded as the reference has it.
 */
export function corruptionText({ message, fatal }: CorruptionReport): string {
  const kind = fatal ? 'Marking image as corrupt' : 'Image is corrupt';
  const later = fatal ? 'further' : 'further non-fatal';
  return `qcow2: ${kind}: ${message}; ${later} corruption events will be suppressed`;
}

/** What create() may use; `node` resolves the `file` member of the create options. */
export interface CreateContext {
  readonly host: Host;
  /** A node opened read-write by name or by inline options; closed by the caller afterwards. */
  node(reference: unknown): Promise<Node>;
  /**
   * Throws before long work what node() would throw after it. What the file holds is not changed;
   * one that is not there may be made.
   */
  foresee?(reference: unknown): Promise<void>;
  readonly secret?: SecretSource;
  /** Ends a derivation of a key that runs, and with it the creation. */
  readonly signal?: AbortSignal;
}

export interface MeasuredBitmap {
  readonly name: string | null;
  /** Bytes. */
  readonly size: number;
  readonly granularity: number;
}

/** What is going to be copied into an image that is measured. */
export interface MeasureSource {
  /** Bytes. */
  readonly length: number;
  /** Its persistent bitmaps; null or absent where its format has none. */
  readonly bitmaps?: readonly MeasuredBitmap[] | null;
  /** Whether data lies at `offset`, and how far that holds. */
  next(offset: number): Eventually<{ readonly data: boolean; readonly length: number }>;
}

/** Bytes of a file. */
export interface MeasuredSize {
  readonly required: number;
  readonly fullyAllocated: number;
  /** What the bitmaps of the source take besides, where both formats keep them. */
  readonly bitmaps?: number;
}

export type DriverKind = 'protocol' | 'format' | 'filter';

export interface Driver<Options = Record<string, unknown>> {
  /** Folder name and QMP name. */
  readonly name: string;
  readonly kind: DriverKind;
  readonly supports: DriverSupports;
  readonly children: Readonly<Record<string, ChildDeclaration>>;
  /** Options that hold a list of children, which are named `OPTION.0`, `OPTION.1`, … */
  readonly childLists?: Readonly<Record<string, ChildDeclaration>>;
  /**
   * 0 (no) to 100 (certain) that a file beginning with `head` (2,048 bytes at most) is of this
   * format.
   */
  probe?(head: Uint8Array): number;
  /**
   * Options (`a.b`: members of one) that change what is read; with one of them the file name alone
   * does not open it.
   */
  readonly strongOptions?: readonly string[];
  /** A file name that opens a node of this driver without any option. */
  readonly plainFilename?: string;
  /** Own options that a reopen may change or reset; absent: nodes cannot be reopened. */
  readonly reopenOptions?: readonly string[];
  /**
   * What a change of single options makes of those in force, `given` put over `kept`; undefined
   * members count as not given. Absent: each option stands for itself.
   */
  joinOptions?(
    kept: Readonly<Record<string, unknown>>,
    given: Readonly<Record<string, unknown>>,
  ): Readonly<Record<string, unknown>>;
  /** Its name is that of the node it filters or shows, whatever that is. */
  readonly namedAfterFile?: boolean;
  /** Those that a reopen may change but not leave out; `reopenOptions` must be there as well. */
  readonly changeableOptions?: readonly string[];
  /** Strong options that `filename` can say. */
  readonly nameOptions?: readonly string[];
  /**
   * A file name that opens a filter of this driver, made of its children's; null where one of
   * those has none. Not asked when a strong option says what no name can.
   */
  filename?(child: (name: string) => string | null, options: Options): string | null;
  /** Throws for options that contradict each other; called before children but `file` are open. */
  checkOptions?(options: Options): void;
  /** What childPermissions() will answer, for children that come before the node is open. */
  openingPermissions?(
    options: Options,
    parents: PermissionPair,
    child: string,
  ): PermissionPair;
  open(context: OpenContext, options: Options): Promise<DriverNode>;
  /** `blockdev-create`: makes an empty image from validated options, durable when it resolves. */
  create?(context: CreateContext, options: Readonly<Record<string, unknown>>): Promise<void>;
  /** How large the file of an image made with these options of create() becomes. */
  measure?(
    options: Readonly<Record<string, unknown>>,
    source: MeasureSource | null,
    context?: { readonly secret?: SecretSource },
  ): Promise<MeasuredSize>;
  /**
   * Which bytes of an image's file are its LUKS header and key material, whatever they say. Throws
   * kind `unsupported` for an image without.
   */
  locateEncryptionHeader?(file: Node): Promise<EncryptionHeaderPlace>;
}

/** Bytes of a file. */
export interface EncryptionHeaderPlace {
  readonly offset: number;
  readonly length: number;
}

/** Where requests to `node` can be held: at the first node on their way that can; null: nowhere. */
export function breakpointsOf(node: Node): Breakpoints | null {
  for (let at: Node | null = node; at !== null; at = at.primary ?? at.filtered) {
    const { breakpoints } = at.driverNode;
    if (breakpoints !== undefined) return breakpoints;
  }
  return null;
}

/** How a child of that name is declared: alone, or as a member of a list. */
export function declarationOf(driver: Driver, child: string): ChildDeclaration | undefined {
  const alone = driver.children[child];
  if (alone !== undefined || driver.childLists === undefined) return alone;
  const dot = child.lastIndexOf('.');
  return dot < 0 ? undefined : driver.childLists[child.slice(0, dot)];
}

/** Erases the option type for registries; open() still only ever sees validated options. */
export function defineDriver<Options>(driver: Driver<Options>): Driver<Options> {
  return driver;
}
