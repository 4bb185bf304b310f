// SPDX-License-Identifier: Apache-2.0
// The graph as its users (jobs, commands, command lines) see it.

import type { Clock, Eventually, PermissionPair, Random } from '../base/index.js';
import type { Host } from '../host/index.js';
import type { BlockStatus } from './block-status.js';
import type { Child, EdgeUser } from './child.js';
import type { BackingLink, Driver, DriverNode } from './driver.js';
import type { Node } from './node.js';
import type { SecretSource } from './open/secret.js';

/**
 * Options of one node in the shape of `blockdev-add`, already validated: `driver`, `node-name`,
 * `read-only`, `file` (a node name or nested options), `backing` (name, nested, or null = none).
 */
export type NodeOptions = Readonly<Record<string, unknown>> & { readonly driver: string };

export interface OpenPolicy {
  /** Nothing is written, not even header flags; backing files are opened unless `noBacking`. */
  readonly inspectOnly?: boolean;
  readonly noBacking?: boolean;
  /** Files that hold nothing but guest data are not opened; only headers can be looked at. */
  readonly noData?: boolean;
  /** Opened read-write to be repaired, damaged as it may be. */
  readonly repair?: boolean;
  /** Take no permissions that conflict with others (`-U`). */
  readonly forceShare?: boolean;
  /**
   * Cache mode: `noFlush` ignores flushes, `direct` is O_DIRECT, `writeThrough` makes writes FUA.
   */
  readonly noFlush?: boolean;
  readonly direct?: boolean;
  readonly writeThrough?: boolean;
  /** Discards reach the image (`discard=unmap`). */
  readonly unmap?: boolean;
}

export interface Graph {
  readonly host: Host;
  readonly clock: Clock;
  readonly random: Random;
  readonly secret: SecretSource;

  /** Opens a node with its children; on failure everything opened on the way is closed again. */
  open(options: NodeOptions, policy?: OpenPolicy): Promise<Node>;
  /**
   * Opens an image by path as command lines do: `format` null probes (and says which it found);
   * a probed raw node refuses to gain a known magic in its first sector.
   */
  openImage(
    path: string,
    format: string | null,
    readOnly: boolean,
    policy?: OpenPolicy,
  ): Promise<Node>;
  /**
   * Opens an image by its name with options of `blockdev-add` beside it; without a `driver` it is
   * probed. Errors have no prefix.
   */
  openByName(
    name: string,
    options: Readonly<Record<string, unknown>>,
    policy?: OpenPolicy,
  ): Promise<Node>;
  find(name: string): Node | null;
  /** Throws kind `not-found` naming `name`. */
  require(name: string): Node;
  readonly nodes: Iterable<Node>;
  /** Drops the monitor's reference; a node without parents and references is closed. */
  close(node: Node): Promise<void>;
  closeAll(): Promise<void>;
  /** The end is near: what derives a key, now or later, ends with kind `cancelled`. */
  giveUpDerivations(): void;

  /**
   * An edge for a user outside the graph: job, export, guest device, command line; a text is its
   * description.
   */
  attach(node: Node, user: EdgeUser | string, permissions: PermissionPair): Promise<Backend>;

  /** Every parent above the nodes stops; resolves when nothing runs. End it exactly once. */
  drain(nodes: readonly Node[]): Promise<DrainedSection>;
  /** The same for every node, the oldest first. */
  drainAll(): Promise<DrainedSection>;
  /**
   * A section for a moment, of the nodes or of every node, after which what it stopped has come to
   * rest again: running jobs show it as a pause.
   */
  standStill(nodes?: readonly Node[]): Promise<void>;

  /** Refuses to break or replace links from `top` down to `base` (exclusive) while held. */
  freezeChain(top: Node, base: Node | null, owner: string): () => void;

  /**
   * Puts an already open DriverNode as a filter above `below`: every parent of `below` moves to
   * the filter, in one drained transaction. `permissions` conflicts refuse it with nothing changed.
   */
  insertFilter(request: InsertFilterRequest): Promise<Node>;
  /**
   * Takes a filter out again; its parents go back to the filtered node. Where their permissions do
   * not let them it stays, passing everything on, until they do.
   */
  removeFilter(filter: Node): Promise<void>;

  /** Gives the users of a node to another one, all of them or none. */
  replaceNode(request: ReplaceRequest): Promise<void>;
  /** Adds a node to the list of children of one whose driver has such. */
  addChild(parent: Node, child: Node): Promise<void>;
  /** Takes a child out of a list, by the name of its edge. */
  removeChild(parent: Node, name: string): Promise<void>;

  /**
   * Gives nodes, found by `node-name`, other options as `blockdev-reopen` does: all or none of
   * them. Options not given return to their defaults.
   */
  reopen(requests: readonly NodeOptions[]): Promise<void>;

  /**
   * Gives a node the options that are named, in the shape of `reopen()`; all others stay, those of
   * its children too. `writeThrough` makes every write durable before it ends.
   */
  changeOptions(
    node: Node,
    options: Readonly<Record<string, unknown>>,
    modes?: { readonly writeThrough: boolean },
  ): Promise<void>;

  /** Reopens a node with all its options but `read-only`. */
  setReadOnly(node: Node, readOnly: boolean): Promise<void>;
  /**
   * Gives `overlay` the node as backing file and the node's users to `overlay`; the node becomes
   * read-only unless someone writes to it.
   */
  appendOverlay(node: Node, overlay: Node): Promise<void>;
  /** The same in two steps, with a way back as long as nothing else changes. */
  prepareOverlay(node: Node, overlay: Node): Promise<PreparedOverlay>;

  /** Replaces the cow child (null detaches) in one drained transaction; header untouched. */
  setBacking(node: Node, backing: Node | null): Promise<void>;
}

/** An overlay in place; one of the two follows, once. */
export interface PreparedOverlay {
  /** The overlay stays: the node below becomes read-only unless someone writes to it. */
  commit(): Promise<void>;
  undo(): Promise<void>;
}

export interface ReplaceRequest {
  readonly node: Node;
  /** Takes its place; edges of what lies below it stay. */
  readonly by: Node;
  /** Filters directly above `node` whose users move too: they are out of use afterwards. */
  readonly without?: readonly Node[];
}

export interface InsertFilterRequest {
  readonly driver: Driver<never>;
  readonly name: string | null;
  readonly below: Node;
  /** Nobody writes through the filter; by default it is as the node below. */
  readonly readOnly?: boolean;
  /** Typed internal options that go to the driver's open(). */
  readonly internal: unknown;
  /** Further edges, by child name (`target` of copy-before-write). */
  readonly children?: Readonly<Record<string, Node>>;
  /** A refusal says whether the filter could not be made or not be put in place. */
  readonly explained?: boolean;
}

export interface DrainedSection {
  end(): void;
}

/**
 * Requests of one outside user. While its edge is quiesced (a drained section covers the node) new
 * requests wait, in order, however many come: a user that takes requests from elsewhere (an export)
 * stops taking them in `onQuiesce(true)` and goes on in `onQuiesce(false)`. Drain waits for what
 * has begun, so no request may wait for something that only comes after the section. What is held
 * back when the user detaches fails with kind `closed`.
 */
export interface Backend {
  readonly child: Child;
  readonly node: Node;
  read(offset: number, buffer: Uint8Array, flags?: number): Eventually<void>;
  write(offset: number, buffer: Uint8Array, flags?: number): Eventually<void>;
  writeZeroes(offset: number, length: number, flags?: number): Eventually<void>;
  discard(offset: number, length: number): Eventually<void>;
  flush(): Eventually<void>;
  setPermissions(permissions: PermissionPair): void;
  /**
   * Called with true when drained, false when it may go on (jobs pause their batches), at once if
   * it is drained now. The callback may begin sections and send requests; it must not throw.
   * While `atRest` says no, the user has no request but may be about to send one: sections wait a
   * few turns for it before and after they stop it.
   */
  onQuiesce(callback: (quiesced: boolean) => void, atRest?: () => boolean): void;
  /**
   * Work outside the pipeline that drain must wait for, until the result is called: lane batches,
   * a change of the header. Graph changes are not asked for within it: they drain.
   */
  enter(): Eventually<() => void>;
  detach(): Promise<void>;
}

/** Status looking down the chain from `top` to `base` (exclusive; null = to the end). */
export interface ChainStatus extends BlockStatus {
  /** 0 for `top`, 1 for its backing file, … of the layer that decides. */
  readonly depth: number;
}

export type { BackingLink, DriverNode };
