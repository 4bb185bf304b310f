// SPDX-License-Identifier: Apache-2.0
// What a character device is, and the simple ones: one pair of streams, or a ring of bytes.
//
// A device has one user at most (a monitor), which is given the streams of every client; without
// a user nothing is read, so a client that speaks too early waits.
import { Readable as ReadableStream, Writable as WritableStream } from 'node:stream';
import { BlockError, CHARDEV_LIMITS } from '../../base/index.js';
const NO_PROPERTIES = new Map();
/** Files, pipes, standard input and output, nothing: streams that are there from the start. */
export class StreamChardev {
    kind;
    properties = NO_PROPERTIES;
    #streams;
    #release;
    #inUse = false;
    constructor(kind, streams, release = () => undefined) {
        this.kind = kind;
        this.#streams = streams;
        this.#release = release;
        // Without a user nobody else would hear of it.
        for (const stream of [streams.input, streams.output])
            stream.on('error', () => undefined);
    }
    get filename() {
        return this.kind;
    }
    get inUse() {
        return this.#inUse;
    }
    attach(user) {
        if (this.#inUse)
            return false;
        this.#inUse = true;
        user(this.#streams);
        return true;
    }
    close() {
        const { input, output } = this.#streams;
        input.destroy();
        // Standard output belongs to the program.
        if (output !== process.stdout)
            output.destroy();
        this.#release();
        return Promise.resolve();
    }
}
/** An input on which nobody ever says anything. */
export function silentInput() {
    return new ReadableStream({ read: () => undefined });
}
export function nullStreams() {
    const output = new WritableStream({ write: (_chunk, _encoding, done) => done() });
    return { input: silentInput(), output };
}
/** Keeps the last bytes that were written. */
export class RingChardev extends StreamChardev {
    #bytes;
    #start = 0;
    #length = 0;
    /** `size` is a power of two, or 0; `room` bytes are left for it. */
    constructor(kind, size, room) {
        const isPower = size >= 0 && (BigInt(size) & (BigInt(size) - 1n)) === 0n;
        if (!isPower) {
            throw new BlockError('invalid-option', 'size of ringbuf chardev must be power of two');
        }
        if (size > room) {
            const most = `ring buffers may have ${CHARDEV_LIMITS.ringBytes} bytes together`;
            throw new BlockError('no-space', `size of ringbuf chardev is too large: ${most}`);
        }
        const output = new WritableStream({
            write: (chunk, _encoding, done) => {
                this.write(chunk);
                done();
            },
        });
        super(kind, { input: silentInput(), output });
        this.#bytes = Buffer.alloc(Number(size));
    }
    get size() {
        return this.#bytes.length;
    }
    write(bytes) {
        const size = this.#bytes.length;
        for (const byte of bytes.subarray(Math.max(0, bytes.length - size))) {
            this.#bytes[(this.#start + this.#length) % size] = byte;
            if (this.#length < size)
                this.#length += 1;
            else
                this.#start = (this.#start + 1) % size;
        }
    }
    /** Takes up to `count` of the oldest bytes. */
    read(count) {
        const taken = Buffer.alloc(Math.min(count, this.#length));
        for (let index = 0; index < taken.length; index += 1) {
            taken[index] = this.#bytes[(this.#start + index) % this.#bytes.length] ?? 0;
        }
        this.#length -= taken.length;
        this.#start = this.#length === 0 ? 0 : (this.#start + taken.length) % this.#bytes.length;
        return taken;
    }
}
