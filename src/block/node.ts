// SPDX-License-Identifier: Apache-2.0
// A vertex of the graph: a driver's open instance behind the request pipeline.

import type { Eventually } from '../base/index.js';
import type { BlockStatus } from './block-status.js';
import type { Child } from './child.js';
import type { BackingLink, CheckResult, Driver, DriverInfo, DriverNode } from './driver.js';
import type { Extent, Lease, TargetReservation } from './extent.js';
import type { NodeLimits, TruncateOptions } from './driver.js';
import type { Request } from './request.js';

/** Sees writes (also zeroes and discards) of a node before they reach the driver. */
export interface WriteObserver {
  /** May make the write wait (copy-before-write). A throw fails the write. */
  beforeWrite?(offset: number, length: number, request: Request): Eventually<void>;
  /** Called when the write ended, well or not (dirty bitmaps, write tracking). */
  afterWrite?(offset: number, length: number, request: Request): void;
  /** The node has a new size in bytes. */
  afterResize?(length: number): void;
}

export interface Node {
  readonly name: string;
  readonly driver: Driver;
  readonly driverNode: DriverNode;
  /** Path or `json:` text that opens the node again; empty when there is none. */
  readonly filename: string;
  /** Options it was opened with, validated, children as node names. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits;
  readonly children: ReadonlyMap<string, Child>;
  readonly parents: ReadonlySet<Child>;
  /** Node behind the edge with role cow, or null. */
  readonly backing: Node | null;
  /** Node behind the edge with role filtered, or null. */
  readonly filtered: Node | null;
  /** Node that stores this node's own data: the child with role primary, or null. */
  readonly primary: Node | null;
  readonly info: DriverInfo;
  /** Opened as raw because no format was given and none was recognised. */
  readonly probedRaw: boolean;

  read(request: Request): Eventually<void>;
  write(request: Request): Eventually<void>;
  writeZeroes(request: Request): Eventually<void>;
  discard(request: Request): Eventually<void>;
  flush(): Eventually<void>;
  /** Status of this layer alone; `exact` looks into host files for holes. */
  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus>;
  truncate(size: number, options?: Partial<TruncateOptions>): Eventually<void>;

  /** Extents of this layer lowered to host files, or null when a driver below must see the data. */
  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null>;
  lease(): Lease;
  /**
   * Observers of this node and of those below see a write when the reservation ends; those of this
   * node do not when it is `unchanged`: filled with what is read anyway.
   */
  reserve(
    offset: number,
    length: number,
    unchanged?: boolean,
  ): Eventually<TargetReservation | null>;

  backingLink(): BackingLink | null;
  changeBacking(link: BackingLink | null): Promise<void>;
  check(repair: 'none' | 'leaks' | 'all'): Promise<CheckResult>;

  addObserver(observer: WriteObserver): () => void;
  /**
   * Runs `work` while no other request touches the range: earlier ones have ended, later ones
   * wait. Inside it this node is reached through `perform` alone, with aligned requests in range.
   */
  exclusive<T>(
    offset: number,
    length: number,
    work: (perform: (request: Request) => Eventually<void>) => Eventually<T>,
  ): Eventually<T>;
  /** Requests and batches running on the node now. */
  readonly inFlight: number;
  /** Bytes from the begin to the end of the furthest write since the node was opened. */
  readonly writtenEnd: number;
  /** Registers work that bypasses the pipeline (a lane batch); call the result exactly once. */
  enterBatch(offset: number, length: number, writes: boolean): () => void;
}
