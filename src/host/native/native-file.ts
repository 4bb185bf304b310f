// SPDX-License-Identifier: Apache-2.0
// A file with everything Linux offers, through the addon.
//
// Inline reads never wait for the disk: what is not in the page cache goes to the thread pool.
// A kind of fallocate that the file system turns out not to have is remembered as missing; EINVAL
// may also mean a range that a block device cannot do, so it counts for that one call only.

import { constants } from 'node:os';

import { BlockError, type Eventually, IO_LIMITS, settle } from '../../base/index.js';
import { DescriptorFile, type DescriptorFileOptions, NOT_NOW } from '../descriptor-file.js';
import { readDescriptor } from '../descriptor-io.js';
import type { LockRequest } from '../file-locks.js';
import type { HostExtent, HostFileCapabilities } from '../host.js';
import type { NativeAddon } from './addon.js';
import { OfdLocks } from './ofd-locks.js';

const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;

const { EAGAIN, EINVAL, ENODEV, ENOSYS, ENXIO, EOPNOTSUPP } = constants.errno;

export class NativeFile extends DescriptorFile {
  readonly #addon: NativeAddon;
  readonly #ofdLocks: OfdLocks;
  #canPunch: boolean;
  #canZeroRange: boolean;
  #canSeek: boolean;
  #canReadNow = true;
  /**
   * Bytes last found to be data: looking for the next hole is linear on some file systems. A hole
   * made there since by someone else is taken for data, which reads the same.
   */
  #dataFrom = 0;
  #dataUntil = 0;
  /** Where the hole found last ends: data, unless somebody else punched since. */
  #dataNext = -1;

  constructor(addon: NativeAddon, options: DescriptorFileOptions) {
    super(options);
    this.#addon = addon;
    this.#ofdLocks = new OfdLocks(addon, options);
    this.#canPunch = !options.readOnly;
    this.#canZeroRange = !options.readOnly;
    this.#canSeek = options.kind === 'file';
  }

  override get capabilities(): HostFileCapabilities {
    return {
      discard: this.#canPunch,
      writeZeroes: this.#canPunch || this.#canZeroRange,
      extents: this.#canSeek,
      locks: this.#ofdLocks.available,
    };
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Eventually<void> {
    this.assertWritable();
    this.assertAligned(offset, length);
    if (length === 0) return undefined;
    this.#dataUntil = 0;
    return this.inFlight(() => this.#zero({ offset, length }, mayUnmap && this.#canPunch));
  }

  override discard(offset: number, length: number): Eventually<void> {
    this.assertWritable();
    this.assertAligned(offset, length);
    if (!this.#canPunch || length === 0) return undefined;
    this.#dataUntil = 0;
    return this.inFlight(() =>
      settle(this.#allocate(PUNCH_HOLE | KEEP_SIZE, offset, length), (errno) => {
        if (!isMissing(errno)) this.#check(errno, 'discard', offset);
        else if (errno !== EINVAL) this.#canPunch = false;
      }),
    );
  }

  override extent(offset: number, length: number): HostExtent {
    const end = Math.min(this.size(), offset + length);
    if (offset >= end) return { kind: 'hole', length: 0 };
    if (!this.#canSeek) return { kind: 'data', length: end - offset };
    if (offset >= this.#dataFrom && offset < this.#dataUntil) {
      return { kind: 'data', length: Math.min(this.#dataUntil, end) - offset };
    }
    // Extents are mostly asked for in their order.
    let hole = offset === this.#dataNext ? this.#addon.seekHole(this.descriptor, offset) : offset;
    if (hole <= offset) {
      const data = this.#addon.seekData(this.descriptor, offset);
      if (data === -ENXIO) return { kind: 'hole', length: end - offset };
      if (data > offset) {
        this.#dataNext = data;
        return { kind: 'hole', length: Math.min(data, end) - offset };
      }
      hole = data < 0 ? data : this.#addon.seekHole(this.descriptor, offset);
    }
    if (hole > offset) {
      this.#dataFrom = offset;
      this.#dataUntil = hole;
      return { kind: 'data', length: Math.min(hole, end) - offset };
    }
    if (isMissing(-hole)) this.#canSeek = false;
    return { kind: 'data', length: end - offset };
  }

  protected override fileSize(): number {
    const size = this.#addon.fileSize(this.descriptor);
    if (size < 0) this.#check(-size, 'stat', 0);
    return size;
  }

  protected override readNow(buffer: Uint8Array, offset: number): number {
    // File systems in memory know no "do not wait", and never do.
    if (!this.#canReadNow) return readDescriptor(this.descriptor, buffer, offset);
    let done = 0;
    while (done < buffer.length) {
      const part = done === 0 ? buffer : buffer.subarray(done);
      const count = this.#addon.readNoWait(this.descriptor, part, offset + done);
      if (count === 0) break;
      if (count < 0) {
        if (count === -EOPNOTSUPP) this.#canReadNow = false;
        else if (count !== -EAGAIN) this.#check(-count, 'read', offset);
        return NOT_NOW;
      }
      done += count;
    }
    return done;
  }

  protected override writeNow(buffer: Uint8Array, offset: number): void {
    const result = this.#addon.writeAll(this.descriptor, buffer, offset);
    if (result !== 0) this.#check(-result, 'write', offset);
  }

  protected override async reserve(offset: number, length: number): Promise<boolean> {
    const result = await this.#addon.allocateLater(this.descriptor, 0, offset, length);
    if (isMissing(-result)) return false;
    this.#check(-result, 'truncate', offset);
    return true;
  }

  protected override lockHost(next: LockRequest, held: LockRequest): void {
    this.#ofdLocks.change(next, held);
  }

  protected override adoptHostLocks(request: LockRequest): void {
    this.#ofdLocks.adopt(request);
  }

  #zero(range: { offset: number; length: number }, unmap: boolean): Eventually<void> {
    if (unmap) return this.#zeroByHole(range, false);
    if (!this.#canZeroRange) return this.#zeroByHole(range, true);
    return settle(this.#allocate(ZERO_RANGE, range.offset, range.length), (errno) => {
      if (!isMissing(errno)) return this.#check(errno, 'write', range.offset);
      if (errno !== EINVAL) this.#canZeroRange = false;
      return this.#zeroByHole(range, true);
    });
  }

  /** Punches a hole, then grows the file over it or reserves room for it as asked. */
  #zeroByHole(range: { offset: number; length: number }, reserve: boolean): Eventually<void> {
    const { offset, length } = range;
    if (!this.#canPunch) return this.#cannotZero(offset);
    return settle(this.#allocate(PUNCH_HOLE | KEEP_SIZE, offset, length), (errno) => {
      if (isMissing(errno)) {
        if (errno !== EINVAL) this.#canPunch = false;
        return reserve ? this.#cannotZero(offset) : this.#zero(range, false);
      }
      this.#check(errno, 'write', offset);
      if (this.kind === 'block-device') return undefined;
      if (!reserve && offset + length <= this.size()) return undefined;
      // Growing without reserving: the last byte is enough to move the end of the file.
      const grown = reserve
        ? this.#allocate(0, offset, length)
        : this.#allocate(0, offset + length - 1, 1);
      return settle(grown, (failure) => this.#check(failure, 'write', offset));
    });
  }

  #cannotZero(offset: number): never {
    throw new BlockError('unsupported', `'${this.path}' cannot write zeroes without data`, {
      path: this.path,
      offset,
    });
  }

  /** fallocate(2): inline while small; 0 or the errno number. */
  #allocate(mode: number, offset: number, length: number): Eventually<number> {
    if (length <= IO_LIMITS.inlineBytes && !this.direct) {
      return -this.#addon.allocateNow(this.descriptor, mode, offset, length);
    }
    const done = this.#addon.allocateLater(this.descriptor, mode, offset, length);
    return done.then((result) => -result);
  }

  #check(errno: number, operation: string, offset: number): void {
    if (errno === 0) return;
    throw this.failure({ code: errnoName(errno) }, operation, offset);
  }
}

/** Whether the errno says that the file system has no such operation. */
function isMissing(errno: number): boolean {
  return errno === EOPNOTSUPP || errno === ENOSYS || errno === ENODEV || errno === EINVAL;
}

const errnoNames = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]));

function errnoName(errno: number): string {
  return errnoNames.get(errno) ?? 'EIO';
}
