// SPDX-License-Identifier: Apache-2.0
// The filter `blklogwrites`: keeps a log of everything that changes the node below.
//
// What succeeded below is then logged, with its data; zeroes are logged as data, discards and
// flushes without. Requests are aligned to the log's sectors. Replaying the log up to a flush gives
// the state that a power cut may leave.
import { BlockError, settle } from '../../../base/index.js';
import { ChildRole, cutRequest, defineDriver } from '../../../block/index.js';
import { findLogEnd, isSectorSize, LogFlag, WriteLog } from './log.js';
const DEFAULT_SECTOR_SIZE = 512;
const DEFAULT_INTERVAL = 4096;
export const blklogwrites = defineDriver({
    name: 'blklogwrites',
    kind: 'filter',
    children: {
        file: { role: ChildRole.filtered | ChildRole.primary, required: true },
        log: { role: ChildRole.metadata, required: true },
    },
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'native',
        discard: 'native',
        flush: 'native',
        blockStatus: 'pass',
        truncate: 'pass',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    strongOptions: ['log-append', 'log-sector-size'],
    async open(context, options) {
        const log = context.child('log');
        const position = await positionOf(log, options);
        const interval = options['log-super-update-interval'] ?? DEFAULT_INTERVAL;
        if (interval === 0) {
            const text = `Invalid log superblock update interval ${interval}`;
            throw new BlockError('invalid-option', text);
        }
        return new BlklogwritesNode(context.child('file'), new WriteLog(log, position, interval));
    },
});
async function positionOf(log, options) {
    const given = options['log-sector-size'];
    const append = options['log-append'] ?? false;
    if (append && given !== undefined) {
        const text = 'log-append and log-sector-size are mutually exclusive';
        throw new BlockError('invalid-option', text);
    }
    if (append && log.node.length > 0)
        return await findLogEnd(log.node);
    const sectorSize = given ?? DEFAULT_SECTOR_SIZE;
    if (!isSectorSize(sectorSize)) {
        throw new BlockError('invalid-option', `Invalid log sector size ${sectorSize}`);
    }
    return { sectorSize, sector: 1, entries: 0 };
}
class BlklogwritesNode {
    #file;
    #log;
    /** Something changed since the last flush; without that a flush is not logged. */
    #changed = false;
    constructor(file, log) {
        this.#file = file;
        this.#log = log;
    }
    get length() {
        return this.#file.node.length;
    }
    get limits() {
        const { limits } = this.#file.node;
        const requestAlignment = Math.max(limits.requestAlignment, this.#log.sectorSize);
        return { ...limits, requestAlignment };
    }
    read(request) {
        const inside = cutRequest(request, this.length);
        request.buffer?.fill(0, inside?.length ?? 0);
        return inside === null ? undefined : this.#file.node.read(inside);
    }
    write(request) {
        const { buffer: data } = request;
        return this.#logged(request, { flags: LogFlag.none, data, zeroes: false }, (inside) => this.#file.node.write(inside));
    }
    writeZeroes(request) {
        return this.#logged(request, { flags: LogFlag.none, data: null, zeroes: true }, (inside) => this.#file.node.writeZeroes(inside));
    }
    discard(request) {
        return this.#logged(request, { flags: LogFlag.discard, data: null, zeroes: false }, (inside) => this.#file.node.discard(inside));
    }
    flush() {
        if (!this.#changed)
            return this.#file.node.flush();
        this.#changed = false;
        const record = { offset: 0, length: 0, flags: LogFlag.flush, data: null, zeroes: false };
        return settle(this.#file.node.flush(), () => this.#log.append(record));
    }
    prepareReadOnly() {
        return this.#log.finish();
    }
    close() {
        return Promise.resolve();
    }
    #logged(request, facts, perform) {
        const { offset, length } = request;
        this.#changed = true;
        const inside = cutRequest(request, this.length);
        const done = inside === null ? undefined : perform(inside);
        return settle(done, () => this.#log.append({ offset, length, ...facts }));
    }
}
