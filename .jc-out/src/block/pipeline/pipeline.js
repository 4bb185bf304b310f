// SPDX-License-Identifier: Apache-2.0
// The gate in front of every driver: state, range, read-only, permission, alignment and size are
// checked here, requests are tracked, observers called, and the driver's answer is asserted.
//
// Fast path: an aligned request while nothing serialising is active goes straight to the driver;
// it is only counted, and becomes a tracked entry when the driver has to wait. The pipeline never
// queues for drain (that is done at the outer edge), so child I/O of running requests passes.
// Order of a write: earlier serialising requests, observers' beforeWrite, driver, afterWrite, flush
// if the write has to be durable.
import { assert, BlockError, MAX_OFFSET, must, Permission, sequence, settle, settleFinally, } from '../../base/index.js';
import { isZero } from '../../codec/index.js';
import { RequestFlag } from '../request.js';
import { isAligned, padRead, padWrite, transferLimit, widen } from './align.js';
import { performDiscard, performFlush, performRead, performWrite, performZeroes, } from './fallbacks.js';
import { RequestTracker } from './tracker.js';
/** Flags that make a write leave the fast path. */
const SLOW_WRITE_FLAGS = RequestFlag.serialising | RequestFlag.noWait | RequestFlag.fua;
const SLOW_READ_FLAGS = RequestFlag.serialising | RequestFlag.noWait;
export class Pipeline {
    tracker = new RequestTracker();
    node;
    driver;
    #policy;
    /** Null before open() ended and after close. */
    driverNode = null;
    /** Also true when only the driver found that it cannot write. */
    readOnly;
    /** Permissions that the node's parents hold together. */
    taken = Permission.none;
    /** Bytes from the begin to the end of the furthest write so far. */
    writtenEnd = 0;
    observers = [];
    #waitsForObservers = false;
    #plainWrites;
    constructor(node, driver, policy) {
        this.node = node;
        this.driver = driver;
        this.#policy = policy;
        this.readOnly = policy.readOnly;
        this.#plainWrites = writesArePlain(policy);
    }
    get policy() {
        return this.#policy;
    }
    /** Only while nothing runs: requests look at it more than once. */
    set policy(policy) {
        this.#policy = policy;
        this.#plainWrites = writesArePlain(policy);
    }
    addObserver(observer) {
        this.#setObservers([...this.observers, observer]);
        return () => this.#setObservers(this.observers.filter((other) => other !== observer));
    }
    get hasWaitingObserver() {
        return this.#waitsForObservers;
    }
    #setObservers(observers) {
        this.observers = observers;
        this.#waitsForObservers = observers.some((observer) => observer.beforeWrite !== undefined);
    }
    /** The open driver instance; throws kind `closed` when there is none. */
    open() {
        if (this.driverNode === null) {
            throw new BlockError('closed', `Node '${this.node.name}' is closed`, {
                node: this.node.name,
            });
        }
        return this.driverNode;
    }
    read(request) {
        const driverNode = this.open();
        this.#checkRange(request, driverNode.length);
        if (request.length === 0)
            return undefined;
        const { limits } = driverNode;
        if ((request.flags & SLOW_READ_FLAGS) === 0 &&
            this.tracker.serialising === 0 &&
            request.length <= transferLimit(limits) &&
            isAligned(request, limits.requestAlignment)) {
            return this.#run(request);
        }
        return this.#splitOrPad(request);
    }
    write(request) {
        const driverNode = this.#checkWrite(request);
        this.#checkRange(request, driverNode.growsOnWrite === true && (this.taken & Permission.resize) !== 0
            ? MAX_OFFSET
            : driverNode.length);
        if (request.length === 0)
            return undefined;
        const { limits } = driverNode;
        if (this.#plainWrites &&
            (request.flags & SLOW_WRITE_FLAGS) === 0 &&
            this.observers.length === 0 &&
            this.tracker.serialising === 0 &&
            request.length <= transferLimit(limits) &&
            isAligned(request, limits.requestAlignment)) {
            return this.#run(request);
        }
        return this.#observed(request, () => this.#splitOrPad(this.#detectZeroes(request)));
    }
    writeZeroes(request) {
        const driverNode = this.#checkWrite(request);
        this.#checkRange(request, driverNode.length);
        if (request.length === 0)
            return undefined;
        const asked = this.policy.unmap || (request.flags & RequestFlag.mayUnmap) === 0
            ? request
            : { ...request, flags: request.flags & ~RequestFlag.mayUnmap };
        return this.#observed(request, () => this.#zeroes(asked));
    }
    discard(request) {
        const driverNode = this.#checkWrite(request);
        this.#checkRange(request, driverNode.length);
        if (request.length === 0 || !this.policy.unmap)
            return undefined;
        return this.#observed(request, () => this.#tracked(request, request));
    }
    flush() {
        this.open();
        const entry = this.tracker.enter({ offset: 0, length: 0, serialising: false });
        return settleFinally(() => performFlush(this), () => this.tracker.leave(entry));
    }
    /** Runs `work` as a serialising request over the range. */
    serialised(offset, length, work) {
        const entry = this.tracker.enter({ offset, length, serialising: true });
        return settleFinally(() => settle(this.tracker.waitTurn(entry), work), () => this.tracker.leave(entry));
    }
    enterBatch(offset, length, writes) {
        this.open();
        const entry = this.tracker.enter({ offset, length, serialising: false });
        if (writes)
            this.#noteEnd(offset + length);
        let ended = false;
        return () => {
            assert(!ended, 'a batch ended twice');
            ended = true;
            this.tracker.leave(entry);
            if (writes)
                this.noteWrite(offset, length);
        };
    }
    /** Observers hear of a write that did not come this way. */
    noteWrite(offset, length) {
        this.#noteEnd(offset + length);
        if (this.observers.length === 0)
            return;
        this.#notifyAfter({ kind: 'write', offset, length, buffer: null, flags: 0 });
    }
    #noteEnd(end) {
        if (end > this.writtenEnd)
            this.writtenEnd = end;
    }
    #checkWrite(request) {
        const driverNode = this.open();
        if (this.readOnly) {
            throw new BlockError('read-only', `Node '${this.node.name}' is read only`, {
                node: this.node.name,
                offset: request.offset,
                errno: 'EPERM',
            });
        }
        const needed = (request.flags & RequestFlag.unchanged) === 0
            ? Permission.write
            : Permission.write | Permission.writeUnchanged;
        assert((this.taken & needed) !== 0, `write to node '${this.node.name}' without an edge that has the permission`);
        return driverNode;
    }
    #checkRange(request, end) {
        const { offset, length, buffer } = request;
        assert(Number.isSafeInteger(offset) && Number.isSafeInteger(length) && length >= 0, 'request offset and length are byte counts');
        assert(buffer === null || buffer.length === length, 'request length is its buffer length');
        if (offset >= 0 && offset + length <= end)
            return;
        throw new BlockError('out-of-range', `${request.kind} of ${length} bytes at ${offset} goes beyond the end of node ` +
            `'${this.node.name}' (${end} bytes)`, { node: this.node.name, offset, operation: request.kind });
    }
    #run(request) {
        const tracker = this.tracker;
        tracker.count += 1;
        let result;
        try {
            result = this.perform(request);
        }
        catch (error) {
            tracker.leaveInline();
            throw error;
        }
        if (!(result instanceof Promise)) {
            tracker.leaveInline();
            return undefined;
        }
        const entry = tracker.enter({
            offset: request.offset,
            length: request.length,
            serialising: false,
        });
        tracker.leaveInline();
        return leaveAfter(result, tracker, entry);
    }
    /** The driver's part of a checked, aligned request. */
    perform(request) {
        switch (request.kind) {
            case 'read':
                return performRead(this, request);
            case 'write':
                this.#noteEnd(request.offset + request.length);
                return performWrite(this, request);
            case 'write-zeroes':
                this.#noteEnd(request.offset + request.length);
                return performZeroes(this, request);
            case 'discard':
                return performDiscard(this, request);
        }
    }
    #tracked(request, range) {
        const entry = this.tracker.enter({
            offset: range.offset,
            length: range.length,
            serialising: (request.flags & RequestFlag.serialising) !== 0,
        });
        return settleFinally(() => {
            if ((request.flags & RequestFlag.noWait) !== 0 && this.tracker.blocker(entry) !== null) {
                throw new BlockError('busy', `Range of node '${this.node.name}' is busy`, {
                    node: this.node.name,
                    offset: request.offset,
                });
            }
            return settle(this.tracker.waitTurn(entry), () => this.perform(request));
        }, () => this.tracker.leave(entry));
    }
    /** Zeroes that do not fit the alignment read, merge and write the blocks at their ends. */
    #zeroes(request) {
        const alignment = this.open().limits.requestAlignment;
        if (isAligned(request, alignment))
            return this.#tracked(request, request);
        const flags = request.flags | RequestFlag.serialising;
        return this.#tracked({ ...request, flags }, widen(request, alignment));
    }
    #splitOrPad(request) {
        if (request.kind === 'write-zeroes')
            return this.#zeroes(request);
        const { limits } = this.open();
        const { requestAlignment } = limits;
        const limit = transferLimit(limits);
        const range = widen(request, Math.max(1, requestAlignment));
        if (range.length > limit) {
            const pieces = splitRequest(request, limit, Math.max(1, requestAlignment));
            return sequence(pieces.length, (index) => this.#splitOrPad(must(pieces[index], 'piece of a request')));
        }
        if (isAligned(request, requestAlignment))
            return this.#tracked(request, request);
        if (request.kind === 'read') {
            return this.#paddedEntry(request, range, () => padRead(this, request, range));
        }
        return this.serialised(range.offset, range.length, () => padWrite(this, request, range));
    }
    #paddedEntry(request, range, work) {
        const entry = this.tracker.enter({
            ...range,
            serialising: (request.flags & RequestFlag.serialising) !== 0,
        });
        return settleFinally(() => settle(this.tracker.waitTurn(entry), work), () => this.tracker.leave(entry));
    }
    #detectZeroes(request) {
        if (this.policy.detectZeroes === 'off' || request.buffer === null)
            return request;
        if (request.offset + request.length > this.open().length)
            return request;
        if ((request.flags & RequestFlag.compressed) !== 0)
            return request;
        if (!isZero(request.buffer))
            return request;
        const unmap = this.policy.detectZeroes === 'unmap' && this.policy.unmap;
        return {
            ...request,
            kind: 'write-zeroes',
            buffer: null,
            flags: request.flags | (unmap ? RequestFlag.mayUnmap : 0),
        };
    }
    /** Calls the observers around a write, counted for drain from the first of them to the flush. */
    #observed(request, work) {
        this.tracker.count += 1;
        return settleFinally(() => settle(this.#notifyBefore(request), () => this.#written(request, work)), () => this.tracker.leaveInline());
    }
    #written(request, work) {
        const durable = this.policy.writeThrough || (request.flags & RequestFlag.fua) !== 0;
        const done = settleFinally(work, () => this.#notifyAfter(request));
        return durable ? settle(done, () => performFlush(this)) : done;
    }
    #notifyBefore(request) {
        if (!this.#waitsForObservers)
            return undefined;
        const observers = this.observers;
        return sequence(observers.length, (index) => observers[index]?.beforeWrite?.(request.offset, request.length, request));
    }
    #notifyAfter(request) {
        for (const observer of this.observers) {
            observer.afterWrite?.(request.offset, request.length, request);
        }
    }
}
function writesArePlain(policy) {
    return !policy.writeThrough && policy.detectZeroes === 'off';
}
function splitRequest(request, limit, alignment) {
    const buffer = must(request.buffer, 'buffer of a data request');
    const pieces = [];
    const end = request.offset + request.length;
    let offset = request.offset;
    while (offset < end) {
        // Pieces after the first begin aligned, so that only the two ends need padding.
        const pieceEnd = Math.min(end, offset - (offset % alignment) + limit);
        const from = offset - request.offset;
        const length = pieceEnd - offset;
        pieces.push({ ...request, offset, length, buffer: buffer.subarray(from, from + length) });
        offset = pieceEnd;
    }
    return pieces;
}
async function leaveAfter(result, tracker, entry) {
    try {
        await result;
    }
    finally {
        tracker.leave(entry);
    }
}
