// SPDX-License-Identifier: Apache-2.0
// The filter `blkverify`: two nodes that should hold the same, checked with every request.
//
// Reads and writes go to both; what they read, and how they end, must not differ, or the request
// fails and says where. One request runs at a time, for two sides do not order overlapping ones
// alike, and that would look like a difference. Flushes go to the tested node, whose size this
// node has. Zeroes are written out and discards do nothing, so that both go the same way.
import { BlockError, settle } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
export const blkverify = defineDriver({
    name: 'blkverify',
    kind: 'filter',
    children: {
        raw: { role: ChildRole.filtered | ChildRole.primary, required: true },
        test: { role: ChildRole.data, required: true },
    },
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'emulate',
        discard: 'none',
        flush: 'native',
        blockStatus: 'none',
        truncate: 'pass',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    filename(child) {
        const [raw, test] = [child('raw'), child('test')];
        return raw === null || test === null ? null : `blkverify:${raw}:${test}`;
    },
    open: (context) => Promise.resolve(new BlkverifyNode(context.node, { test: context.child('test'), raw: context.child('raw') })),
});
class BlkverifyNode {
    #node;
    #test;
    #raw;
    /** Ends, without an error, when the last request so far does. */
    #tail = null;
    constructor(node, sides) {
        this.#node = node;
        this.#test = sides.test;
        this.#raw = sides.raw;
    }
    get length() {
        return this.#test.node.length;
    }
    get limits() {
        const test = this.#test.node.limits;
        const raw = this.#raw.node.limits;
        const smaller = (left, right) => left === 0 || right === 0 ? Math.max(left, right) : Math.min(left, right);
        return {
            requestAlignment: Math.max(test.requestAlignment, raw.requestAlignment),
            maxTransfer: smaller(test.maxTransfer, raw.maxTransfer),
            optimalZeroes: 0,
            optimalDiscard: 0,
        };
    }
    read(request) {
        return this.#inTurn(() => this.#read(request));
    }
    write(request) {
        return this.#inTurn(() => this.#write(request));
    }
    #read(request) {
        const { offset, length, buffer } = request;
        const other = { ...request, buffer: new Uint8Array(length) };
        const outcome = this.#both(() => this.#test.node.read(request), () => this.#raw.node.read(other), request);
        return settle(outcome, () => {
            if (buffer === null || Buffer.compare(buffer, other.buffer) === 0)
                return;
            const at = buffer.findIndex((byte, index) => byte !== other.buffer[index]);
            throw this.#mismatch(request, `contents mismatch at offset ${offset + at}`);
        });
    }
    #write(request) {
        return this.#both(() => this.#test.node.write(request), () => this.#raw.node.write(request), request);
    }
    flush() {
        return this.#test.node.flush();
    }
    close() {
        return Promise.resolve();
    }
    #inTurn(work) {
        const result = this.#tail === null ? work() : this.#tail.then(work);
        if (!(result instanceof Promise))
            return undefined;
        const end = () => {
            if (this.#tail === tail)
                this.#tail = null;
        };
        const tail = result.then(end, end);
        this.#tail = tail;
        return result;
    }
    /** Ends when both have, with the error they agree on. */
    #both(test, raw, request) {
        const first = outcomeOf(test);
        const second = outcomeOf(raw);
        return settle(first, (left) => settle(second, (right) => {
            if (left?.errno === right?.errno) {
                if (left !== null)
                    throw left;
                return;
            }
            const text = `return value mismatch ${left?.errno ?? 'none'} != ${right?.errno ?? 'none'}`;
            throw this.#mismatch(request, text);
        }));
    }
    #mismatch({ kind, offset, length }, finding) {
        return new BlockError('io', `blkverify: ${kind} offset=${offset} bytes=${length} ${finding}`, {
            node: this.#node.name,
            offset,
            operation: kind,
        });
    }
}
function outcomeOf(work) {
    try {
        const result = work();
        if (!(result instanceof Promise))
            return null;
        return result.then(() => null, failure);
    }
    catch (error) {
        return failure(error);
    }
}
function failure(error) {
    if (error instanceof BlockError)
        return error;
    throw error;
}
