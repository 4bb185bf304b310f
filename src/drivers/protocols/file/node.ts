// SPDX-License-Identifier: Apache-2.0
// An open host file or block device as a node.
//
// The size is rounded up to 512 bytes, as every image size is; what lies between the end of the
// file and the end of the node reads as zeroes. Reads that come back short are filled with zeroes.
// Permissions of the node become byte locks of the file: what parents take, and what one of them
// does not share.

import {
  BlockError,
  must,
  Permission,
  sequence,
  settle,
  type Eventually,
  type PermissionPair,
} from '../../../base/index.js';
import type {
  BlockStatus,
  DiscardCounts,
  DriverNode,
  Extent,
  Node,
  NodeLimits,
  OpenContext,
  PieceOutcome,
  Request,
  StatusRuns,
  TargetReservation,
  TruncateOptions,
} from '../../../block/index.js';
import { RequestFlag, StatusFlag } from '../../../block/index.js';
import type { HostExtent, HostFile, OpenFileOptions } from '../../../host/index.js';
import { FileAccess } from './access.js';
import { KnownExtents } from './known-extents.js';
import type { FileNodeOptions } from './open.js';

const SECTOR_BYTES = 512;
/** Bytes of one write when zeroes have to be written out. */
const ZERO_CHUNK_BYTES = 256 * 1024;

export interface FileNodeParts {
  readonly node: Node;
  readonly file: HostFile;
  /** Whether permissions become locks. */
  readonly locked: boolean;
  /** How the node was to be opened; with `openAgain` the file follows its users. */
  readonly flags: OpenFileOptions;
  readonly openAgain: ((readOnly: boolean) => HostFile) | null;
  /** Permissions that its users hold when it is reopened; none at first. */
  readonly taken: number;
  readonly discards: DiscardCounts;
  /** Gives the same parts when nothing has to change. */
  reopen(
    current: FileNodeParts,
    context: OpenContext,
    options: FileNodeOptions,
  ): Promise<FileNodeParts>;
}

const WRITING = Permission.write | Permission.writeUnchanged | Permission.resize;

/** Written at the end of a range to have it inside the file. */
const LAST_BYTE = new Uint8Array(1);

export class FileNode implements DriverNode {
  readonly readOnly: boolean;
  /** A device does not: what is written past its end fails for want of room. */
  readonly growsOnWrite = true;
  readonly discards: DiscardCounts;
  readonly limits: NodeLimits;
  readonly #parts: FileNodeParts;
  readonly #node: Node;
  readonly #access: FileAccess;
  /** Null while the file may change. */
  #known: KnownExtents | null = null;

  constructor(parts: FileNodeParts) {
    this.#parts = parts;
    this.discards = parts.discards;
    this.#access = new FileAccess(parts, parts.taken);
    this.readOnly = parts.flags.readOnly;
    this.#node = parts.node;
    this.limits = {
      requestAlignment: parts.file.alignment,
      maxTransfer: 0,
      optimalZeroes: 0,
      optimalDiscard: 0,
    };
  }

  get hostFile(): HostFile {
    return this.#access.file;
  }

  get length(): number {
    const size = this.hostFile.size();
    const excess = size % SECTOR_BYTES;
    return excess === 0 ? size : size - excess + SECTOR_BYTES;
  }

  setPermissions(cumulative: PermissionPair): void {
    this.#access.declare(cumulative);
    this.#known = this.#staysAsItIs(cumulative) ? new KnownExtents(this.hostFile) : null;
  }

  /**
   * Its locks keep those out who could change what is read. Who writes the same again may make
   * zeroes of a hole: to remember it as zeroes is still right.
   */
  #staysAsItIs({ taken, shared }: PermissionPair): boolean {
    const { locks, extents } = this.hostFile.capabilities;
    if (!this.#parts.locked || !locks || !extents) return false;
    return (taken & WRITING) === 0 && (shared & Permission.write) === 0;
  }

  read(request: Request): Eventually<void> {
    const buffer = must(request.buffer, 'buffer of a read');
    const count = this.hostFile.read(buffer, request.offset);
    if (count instanceof Promise) return fillLater(count, buffer);
    if (count < buffer.length) buffer.fill(0, count);
    return undefined;
  }

  write(request: Request): Eventually<void> {
    return this.hostFile.write(must(request.buffer, 'buffer of a write'), request.offset);
  }

  writeZeroes(request: Request): Eventually<void> {
    if (!this.hostFile.capabilities.writeZeroes) {
      throw new BlockError('unsupported', 'the host cannot write zeroes without data');
    }
    const mayUnmap = (request.flags & RequestFlag.mayUnmap) !== 0;
    return this.hostFile.writeZeroes(request.offset, request.length, mayUnmap);
  }

  discard(request: Request): Eventually<void> {
    let done: Eventually<void>;
    try {
      done = this.hostFile.discard(request.offset, request.length);
    } catch (error) {
      this.discards.failed += 1;
      throw error;
    }
    if (done instanceof Promise) return this.#countDiscard(done, request.length);
    this.discards.succeeded += 1;
    this.discards.bytes += request.length;
    return undefined;
  }

  async #countDiscard(done: Promise<void>, length: number): Promise<void> {
    try {
      await done;
    } catch (error) {
      this.discards.failed += 1;
      throw error;
    }
    this.discards.succeeded += 1;
    this.discards.bytes += length;
  }

  flush(): Eventually<void> {
    return this.#access.sync();
  }

  blockStatus(offset: number, length: number): BlockStatus {
    const span = this.dataSpan(offset, length);
    return {
      length: Math.abs(span),
      allocated: true,
      data: span > 0,
      zero: span < 0,
      compressed: false,
      hostOffset: offset,
      file: this.#node,
    };
  }

  statusRuns(offset: number, length: number, runs: StatusRuns): void {
    const { allocated, data, zero } = StatusFlag;
    const end = offset + length;
    runs.file = this.#node;
    for (let at = offset; at < end && !runs.isFull; ) {
      const span = this.dataSpan(at, end - at);
      runs.add(Math.abs(span), allocated | (span < 0 ? zero : data), at);
      at += Math.abs(span);
    }
  }

  dataSpan(offset: number, length: number): number {
    if (this.#known !== null) {
      const span = this.#known.at(offset);
      return span < 0 ? -Math.min(-span, length) : Math.min(span, length);
    }
    const extent = this.#extent(offset, length);
    return extent.kind === 'hole' ? -extent.length : extent.length;
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    const { preallocation } = options;
    if (preallocation === 'metadata') {
      throw new BlockError('unsupported', 'Unsupported preallocation mode: metadata', {
        path: this.hostFile.path,
      });
    }
    if (this.hostFile.kind === 'block-device') return this.#keepSize(size, options);
    return this.hostFile.truncate(size, preallocation);
  }

  /** A smaller size that need not be exact changes nothing. */
  #keepSize(size: number, { exact, preallocation }: TruncateOptions): void {
    const { path } = this.hostFile;
    if (preallocation !== 'off') {
      const text = `Preallocation mode '${preallocation}' unsupported for this non-regular file`;
      throw new BlockError('unsupported', text, { path });
    }
    if (exact && size !== this.length) {
      throw new BlockError('unsupported', 'Cannot resize device files', { path });
    }
    if (size > this.length) {
      throw new BlockError('invalid-option', 'Cannot grow device files', { path });
    }
  }

  planExtents(offset: number, length: number): readonly Extent[] | null {
    // Lanes read with buffers of their own, which need not fit what O_DIRECT asks.
    if (this.hostFile.alignment > 1) return null;
    const extents: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const span = this.dataSpan(at, end - at);
      extents.push(
        span < 0
          ? { kind: 'zero', length: -span }
          : { kind: 'data', length: span, file: this.hostFile, hostOffset: at },
      );
      at += Math.abs(span);
    }
    return extents;
  }

  /**
   * Past the end the file is grown first: lanes write out of order, and each write that extends a
   * file costs the host a change of its inode. Grown by a byte of the range, which is the caller's
   * alone, and not by a new size, which could cut off what others write meanwhile.
   */
  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    const file = this.hostFile;
    if (file.alignment > 1) return null;
    if (offset + length <= file.size()) return this.#inPlace(offset, length);
    const grown = file.write(LAST_BYTE, offset + length - 1);
    return settle(grown, () => this.#inPlace(offset, length));
  }

  #inPlace(offset: number, length: number): TargetReservation {
    const file = this.hostFile;
    return {
      pieces: [{ offset, length, file, hostOffset: offset, fresh: false }],
      link: ([outcome]: readonly PieceOutcome[]) =>
        outcome === 'zero' ? this.#makeZero(offset, length) : undefined,
      abandon: () => undefined,
    };
  }

  async reopen(
    context: OpenContext,
    options: Readonly<Record<string, unknown>>,
  ): Promise<DriverNode> {
    const current = { ...this.#parts, file: this.hostFile, taken: this.#access.taken };
    const parts = await current.reopen(current, context, options as FileNodeOptions);
    return parts === current ? this : new FileNode(parts);
  }

  takeOver(old: DriverNode): void {
    if (old.hostFile !== undefined) this.#access.takeOver(old.hostFile);
  }

  async close(): Promise<void> {
    await this.#access.close();
  }

  /** What is there, past the end of the file a hole; never of length 0. */
  #extent(offset: number, length: number): HostExtent {
    if (!this.hostFile.capabilities.extents) return this.#dataExtent(offset, length);
    const extent = this.hostFile.extent(offset, length);
    return extent.length > 0 ? extent : { kind: 'hole', length };
  }

  #dataExtent(offset: number, length: number): HostExtent {
    const inFile = this.hostFile.size() - offset;
    return inFile <= 0
      ? { kind: 'hole', length }
      : { kind: 'data', length: Math.min(length, inFile) };
  }

  #makeZero(offset: number, length: number): Eventually<void> {
    const extent = this.#extent(offset, length);
    if (extent.kind === 'hole' && extent.length >= length) return undefined;
    if (this.hostFile.capabilities.writeZeroes) {
      try {
        const done = this.hostFile.writeZeroes(offset, length, true);
        if (!(done instanceof Promise)) return undefined;
        return done.catch((error: unknown) => this.#writeOut(offset, length, error));
      } catch (error) {
        return this.#writeOut(offset, length, error);
      }
    }
    return this.#writeOut(offset, length, null);
  }

  #writeOut(offset: number, length: number, cause: unknown): Eventually<void> {
    if (cause !== null && !(cause instanceof BlockError && cause.kind === 'unsupported'))
      throw cause;
    const zeroes = new Uint8Array(Math.min(ZERO_CHUNK_BYTES, length));
    return sequence(Math.ceil(length / zeroes.length), (index) => {
      const from = index * zeroes.length;
      const part = zeroes.subarray(0, Math.min(zeroes.length, length - from));
      return this.hostFile.write(part, offset + from);
    });
  }
}

function fillLater(count: Promise<number>, buffer: Uint8Array): Eventually<void> {
  return settle(count, (done) => {
    if (done < buffer.length) buffer.fill(0, done);
  });
}
