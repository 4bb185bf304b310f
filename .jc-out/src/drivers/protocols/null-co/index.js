// SPDX-License-Identifier: Apache-2.0
// Drivers `null-co` and `null-aio`: take every write and give nothing back, after a set latency or
// at once; null-aio never within the caller's turn.
//
// Reads leave the caller's buffer as it is unless read-zeroes is on.
import { BlockError, MAX_OFFSET } from '../../../base/index.js';
import { defineDriver, } from '../../../block/index.js';
const DEFAULT_SIZE = 2 ** 30;
const SECTOR_BYTES = 512;
class NullNode {
    length;
    limits = { requestAlignment: 1, maxTransfer: 0, optimalZeroes: 0, optimalDiscard: 0 };
    #readZeroes;
    #latencyMs;
    /** Even without a latency requests end after the caller's turn. */
    #later;
    #context;
    constructor(context, options) {
        const size = options.size ?? DEFAULT_SIZE;
        if (!Number.isSafeInteger(size) || size < 0 || size > MAX_OFFSET - SECTOR_BYTES) {
            const { name } = context.node.driver;
            throw new BlockError('invalid-option', `size ${size} of driver '${name}' is out of range`);
        }
        this.length = Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES;
        this.#readZeroes = options['read-zeroes'] ?? false;
        this.#latencyMs = (options['latency-ns'] ?? 0) / 1e6;
        this.#later = context.node.driver.name === 'null-aio';
        this.#context = context;
    }
    read(request) {
        if (this.#readZeroes)
            request.buffer?.fill(0);
        return this.#delay();
    }
    write(_request) {
        return this.#delay();
    }
    writeZeroes(_request) {
        return this.#delay();
    }
    discard(_request) {
        return this.#delay();
    }
    flush() {
        return this.#delay();
    }
    blockStatus(_offset, length) {
        const zero = this.#readZeroes;
        return { length, allocated: true, data: !zero, zero, compressed: false };
    }
    planExtents(_offset, length) {
        return this.#readZeroes ? [{ kind: 'zero', length }] : null;
    }
    /** Only flags change, and those are not its concern. */
    reopen() {
        return Promise.resolve(this);
    }
    close() {
        return Promise.resolve();
    }
    #delay() {
        if (this.#latencyMs === 0)
            return this.#later ? Promise.resolve() : undefined;
        const { clock } = this.#context.host;
        return new Promise((resolve) => void clock.after(this.#latencyMs, resolve));
    }
}
export const nullDriver = nullDriverNamed('null-co');
export const nullAioDriver = nullDriverNamed('null-aio');
function nullDriverNamed(name) {
    return defineDriver({
        name,
        kind: 'protocol',
        supports: {
            read: 'native',
            write: 'native',
            writeZeroes: 'native',
            discard: 'native',
            flush: 'native',
            blockStatus: 'native',
            truncate: 'none',
            planExtents: 'native',
            reserve: 'none',
            compressedWrite: 'none',
            changeBacking: 'none',
            check: 'none',
        },
        children: {},
        reopenOptions: [],
        strongOptions: ['size', 'read-zeroes'],
        plainFilename: `${name}://`,
        open: (context, options) => Promise.resolve(new NullNode(context, options)),
    });
}
