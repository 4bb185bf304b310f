// SPDX-License-Identifier: Apache-2.0
// A file with everything Linux offers, through the addon.
//
// Inline reads never wait for the disk: what is not in the page cache goes to the thread pool.
// A kind of fallocate that the file system turns out not to have is remembered as missing; EINVAL
// may also mean a range that a block device cannot do, so it counts for that one call only.
import { constants } from 'node:os';
import { BlockError, IO_LIMITS, settle } from '../../base/index.js';
import { DescriptorFile, NOT_NOW } from '../descriptor-file.js';
import { readDescriptor } from '../descriptor-io.js';
import { OfdLocks } from './ofd-locks.js';
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;
const { EAGAIN, EINVAL, ENODEV, ENOSYS, ENXIO, EOPNOTSUPP } = constants.errno;
export class NativeFile extends DescriptorFile {
    #addon;
    #ofdLocks;
    #canPunch;
    #canZeroRange;
    #canSeek;
    #canReadNow = true;
    /**
     * Bytes last found to be data: looking for the next hole is linear on some file systems. A hole
     * made there since by someone else is taken for data, which reads the same.
     */
    #dataFrom = 0;
    #dataUntil = 0;
    constructor(addon, options) {
        super(options);
        this.#addon = addon;
        this.#ofdLocks = new OfdLocks(addon, options);
        this.#canPunch = !options.readOnly;
        this.#canZeroRange = !options.readOnly;
        this.#canSeek = options.kind === 'file';
    }
    get capabilities() {
        return {
            discard: this.#canPunch,
            writeZeroes: this.#canPunch || this.#canZeroRange,
            extents: this.#canSeek,
            locks: this.#ofdLocks.available,
        };
    }
    writeZeroes(offset, length, mayUnmap) {
        this.assertWritable();
        this.assertAligned(offset, length);
        if (length === 0)
            return undefined;
        this.#dataUntil = 0;
        return this.inFlight(() => this.#zero({ offset, length }, mayUnmap && this.#canPunch));
    }
    discard(offset, length) {
        this.assertWritable();
        this.assertAligned(offset, length);
        if (!this.#canPunch || length === 0)
            return undefined;
        this.#dataUntil = 0;
        return this.inFlight(() => settle(this.#allocate(PUNCH_HOLE | KEEP_SIZE, offset, length), (errno) => {
            if (!isMissing(errno))
                this.#check(errno, 'discard', offset);
            else if (errno !== EINVAL)
                this.#canPunch = false;
        }));
    }
    extent(offset, length) {
        const end = Math.min(this.size(), offset + length);
        if (offset >= end)
            return { kind: 'hole', length: 0 };
        if (!this.#canSeek)
            return { kind: 'data', length: end - offset };
        if (offset >= this.#dataFrom && offset < this.#dataUntil) {
            return { kind: 'data', length: Math.min(this.#dataUntil, end) - offset };
        }
        const data = this.#addon.seekData(this.descriptor, offset);
        if (data === -ENXIO)
            return { kind: 'hole', length: end - offset };
        if (data > offset)
            return { kind: 'hole', length: Math.min(data, end) - offset };
        const hole = data < 0 ? data : this.#addon.seekHole(this.descriptor, offset);
        if (hole > offset) {
            this.#dataFrom = offset;
            this.#dataUntil = hole;
            return { kind: 'data', length: Math.min(hole, end) - offset };
        }
        if (isMissing(-hole))
            this.#canSeek = false;
        return { kind: 'data', length: end - offset };
    }
    fileSize() {
        const size = this.#addon.fileSize(this.descriptor);
        if (size < 0)
            this.#check(-size, 'stat', 0);
        return size;
    }
    readNow(buffer, offset) {
        // File systems in memory know no "do not wait", and never do.
        if (!this.#canReadNow)
            return readDescriptor(this.descriptor, buffer, offset);
        let done = 0;
        while (done < buffer.length) {
            const part = done === 0 ? buffer : buffer.subarray(done);
            const count = this.#addon.readNoWait(this.descriptor, part, offset + done);
            if (count === 0)
                break;
            if (count < 0) {
                if (count === -EOPNOTSUPP)
                    this.#canReadNow = false;
                else if (count !== -EAGAIN)
                    this.#check(-count, 'read', offset);
                return NOT_NOW;
            }
            done += count;
        }
        return done;
    }
    writeNow(buffer, offset) {
        const result = this.#addon.writeAll(this.descriptor, buffer, offset);
        if (result !== 0)
            this.#check(-result, 'write', offset);
    }
    async reserve(offset, length) {
        const result = await this.#addon.allocateLater(this.descriptor, 0, offset, length);
        if (isMissing(-result))
            return false;
        this.#check(-result, 'truncate', offset);
        return true;
    }
    lockHost(next, held) {
        this.#ofdLocks.change(next, held);
    }
    adoptHostLocks(request) {
        this.#ofdLocks.adopt(request);
    }
    #zero(range, unmap) {
        if (unmap)
            return this.#zeroByHole(range, false);
        if (!this.#canZeroRange)
            return this.#zeroByHole(range, true);
        return settle(this.#allocate(ZERO_RANGE, range.offset, range.length), (errno) => {
            if (!isMissing(errno))
                return this.#check(errno, 'write', range.offset);
            if (errno !== EINVAL)
                this.#canZeroRange = false;
            return this.#zeroByHole(range, true);
        });
    }
    /** Punches a hole, then grows the file over it or reserves room for it as asked. */
    #zeroByHole(range, reserve) {
        const { offset, length } = range;
        if (!this.#canPunch)
            return this.#cannotZero(offset);
        return settle(this.#allocate(PUNCH_HOLE | KEEP_SIZE, offset, length), (errno) => {
            if (isMissing(errno)) {
                if (errno !== EINVAL)
                    this.#canPunch = false;
                return reserve ? this.#cannotZero(offset) : this.#zero(range, false);
            }
            this.#check(errno, 'write', offset);
            if (this.kind === 'block-device')
                return undefined;
            if (!reserve && offset + length <= this.size())
                return undefined;
            // Growing without reserving: the last byte is enough to move the end of the file.
            const grown = reserve
                ? this.#allocate(0, offset, length)
                : this.#allocate(0, offset + length - 1, 1);
            return settle(grown, (failure) => this.#check(failure, 'write', offset));
        });
    }
    #cannotZero(offset) {
        throw new BlockError('unsupported', `'${this.path}' cannot write zeroes without data`, {
            path: this.path,
            offset,
        });
    }
    /** fallocate(2): inline while small; 0 or the errno number. */
    #allocate(mode, offset, length) {
        if (length <= IO_LIMITS.inlineBytes && !this.direct) {
            return -this.#addon.allocateNow(this.descriptor, mode, offset, length);
        }
        const done = this.#addon.allocateLater(this.descriptor, mode, offset, length);
        return done.then((result) => -result);
    }
    #check(errno, operation, offset) {
        if (errno === 0)
            return;
        throw this.failure({ code: errnoName(errno) }, operation, offset);
    }
}
/** Whether the errno says that the file system has no such operation. */
function isMissing(errno) {
    return errno === EOPNOTSUPP || errno === ENOSYS || errno === ENODEV || errno === EINVAL;
}
const errnoNames = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]));
function errnoName(errno) {
    return errnoNames.get(errno) ?? 'EIO';
}
