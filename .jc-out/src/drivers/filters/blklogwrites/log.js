// SPDX-License-Identifier: Apache-2.0
// The log of `blklogwrites`, in the format of Linux' dm-log-writes (version 1).
//
// Sector 0 is the superblock; each entry is one sector, followed by the data of a write. Entries go
// out one after another, and the superblock counts one only when it is written. Numbers are little
// endian.
import { BlockError, BLKLOGWRITES_LIMITS, must, Turns } from '../../../base/index.js';
import { readRequest, writeRequest } from '../../../block/index.js';
const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
const HEADER_BYTES = 32;
const KNOWN_FLAGS = 0x1fn;
export const LogFlag = { none: 0, flush: 1, discard: 4 };
export function isSectorSize(size) {
    return (size >= HEADER_BYTES &&
        size < BLKLOGWRITES_LIMITS.sectorBytes &&
        Number.isInteger(Math.log2(size)));
}
/** Finds the end of a log that is there already; throws where it is none. */
export async function findLogEnd(log) {
    const head = await readNumbers(log, 0);
    const [magic, version, entries, sizes] = head;
    if (magic !== MAGIC)
        throw new BlockError('invalid-option', 'Invalid log superblock magic');
    if (version !== VERSION) {
        throw new BlockError('unsupported', `Unsupported log version ${version}`);
    }
    const sectorSize = Number(must(sizes, 'sector size') & 0xffffffffn);
    if (!isSectorSize(sectorSize)) {
        throw new BlockError('invalid-option', `Invalid log sector size ${sectorSize}`);
    }
    const count = Number(entries);
    let sector = 1;
    for (let index = 0; index < count; index += 1) {
        if ((sector + 1) * sectorSize > log.length) {
            throw new BlockError('corrupt-image', `log ends before entry ${index} of ${count}`);
        }
        const entry = await readNumbers(log, sector * sectorSize);
        const flags = must(entry[2], 'flags');
        if ((flags & ~KNOWN_FLAGS) !== 0n) {
            throw new BlockError('corrupt-image', `log entry ${index} has unknown flags`);
        }
        const hasData = (flags & BigInt(LogFlag.discard)) === 0n;
        sector += 1 + (hasData ? Number(entry[1]) : 0);
        if (sector * sectorSize > log.length) {
            throw new BlockError('corrupt-image', `log ends within entry ${index} of ${count}`);
        }
    }
    return { sectorSize, sector, entries: count };
}
async function readNumbers(log, offset) {
    const bytes = new Uint8Array(HEADER_BYTES);
    const there = Math.max(0, Math.min(HEADER_BYTES, log.length - offset));
    await log.read(readRequest(offset, bytes.subarray(0, there)));
    const view = new DataView(bytes.buffer);
    return [0, 8, 16, 24].map((at) => view.getBigUint64(at, true));
}
export class WriteLog {
    sectorSize;
    #log;
    #interval;
    #sector;
    #entries;
    /** Entries that the superblock tells of. */
    #told;
    #turns = new Turns();
    constructor(log, position, interval) {
        this.#log = log;
        this.#interval = interval;
        this.sectorSize = position.sectorSize;
        this.#sector = position.sector;
        this.#entries = position.entries;
        this.#told = position.entries;
    }
    append(record) {
        return this.#turns.run(() => this.#write(record));
    }
    /** Brings the superblock up to date and out. */
    finish() {
        return this.#turns.run(async () => {
            if (this.#told !== this.#entries)
                await this.#writeSuper();
        });
    }
    async #write(record) {
        const { sectorSize } = this;
        const { data } = record;
        const payload = data === null ? 0 : Math.ceil(data.length / sectorSize);
        const bytes = new Uint8Array((1 + payload) * sectorSize);
        const view = new DataView(bytes.buffer);
        view.setBigUint64(0, BigInt(record.offset / sectorSize), true);
        view.setBigUint64(8, BigInt(record.length / sectorSize), true);
        view.setBigUint64(16, BigInt(record.flags), true);
        if (data !== null)
            bytes.set(data, sectorSize);
        const at = this.#sector * sectorSize;
        await this.#store(at, bytes);
        if (record.zeroes)
            await this.#storeZeroes(at + bytes.length, record.length);
        this.#sector += 1 + payload + (record.zeroes ? record.length / sectorSize : 0);
        this.#entries += 1;
        const due = record.flags === LogFlag.flush || this.#entries % this.#interval === 0;
        if (due)
            await this.#writeSuper();
    }
    async #storeZeroes(offset, length) {
        const most = BLKLOGWRITES_LIMITS.zeroBytes;
        const zeroes = new Uint8Array(Math.min(length, most));
        for (let done = 0; done < length; done += most) {
            await this.#store(offset + done, zeroes.subarray(0, Math.min(most, length - done)));
        }
    }
    async #writeSuper() {
        const entries = this.#entries;
        const bytes = new Uint8Array(this.sectorSize);
        const view = new DataView(bytes.buffer);
        view.setBigUint64(0, MAGIC, true);
        view.setBigUint64(8, VERSION, true);
        view.setBigUint64(16, BigInt(entries), true);
        view.setUint32(24, this.sectorSize, true);
        // What it counts is on disk first.
        await this.#log.node.flush();
        await this.#store(0, bytes);
        await this.#log.node.flush();
        this.#told = entries;
    }
    #store(offset, bytes) {
        return this.#log.node.write(writeRequest(offset, bytes));
    }
}
