// SPDX-License-Identifier: Apache-2.0
// What a character device is, and the simple ones: one pair of streams, or a ring of bytes.
//
// A device has one user at most (a monitor), which is given the streams of every client; without
// a user nothing is read, so a client that speaks too early waits.

import type { Readable, Writable } from 'node:stream';
import { Readable as ReadableStream, Writable as WritableStream } from 'node:stream';

import { BlockError, CHARDEV_LIMITS } from '../../base/index.js';

/** Both directions of a connection; a socket is both. */
export interface CharStreams {
  readonly input: Readable;
  readonly output: Writable;
}

export type CharUser = (streams: CharStreams) => void;

export interface CharProperty {
  readonly type: string;
  get(): unknown;
}

export interface Chardev {
  readonly kind: string;
  /** What it is connected to, as query-chardev says it. */
  readonly filename: string;
  readonly properties: ReadonlyMap<string, CharProperty>;
  readonly inUse: boolean;
  /** Hands over every client, those that wait already first; false when there is a user. */
  attach(user: CharUser): boolean;
  close(): Promise<void>;
}

const NO_PROPERTIES: ReadonlyMap<string, CharProperty> = new Map();

/** Files, pipes, standard input and output, nothing: streams that are there from the start. */
export class StreamChardev implements Chardev {
  readonly kind: string;
  readonly properties = NO_PROPERTIES;
  readonly #streams: CharStreams;
  readonly #release: () => void;
  #inUse = false;

  constructor(kind: string, streams: CharStreams, release: () => void = () => undefined) {
    this.kind = kind;
    this.#streams = streams;
    this.#release = release;
    // Without a user nobody else would hear of it.
    for (const stream of [streams.input, streams.output]) stream.on('error', () => undefined);
  }

  get filename(): string {
    return this.kind;
  }

  get inUse(): boolean {
    return this.#inUse;
  }

  attach(user: CharUser): boolean {
    if (this.#inUse) return false;
    this.#inUse = true;
    user(this.#streams);
    return true;
  }

  close(): Promise<void> {
    const { input, output } = this.#streams;
    // Standard streams belong to the program: the next device of the kind goes on with them.
    if (input === process.stdin) input.pause();
    else input.destroy();
    if (output !== process.stdout) output.destroy();
    this.#release();
    return Promise.resolve();
  }
}

/** An input on which nobody ever says anything. */
export function silentInput(): Readable {
  return new ReadableStream({ read: () => undefined });
}

export function nullStreams(): CharStreams {
  const output = new WritableStream({ write: (_chunk, _encoding, done) => done() });
  return { input: silentInput(), output };
}

/** Keeps the last bytes that were written. */
export class RingChardev extends StreamChardev {
  readonly #bytes: Buffer;
  #start = 0;
  #length = 0;

  /** `size` is a power of two, or 0; `room` bytes are left for it. */
  constructor(kind: string, size: number | bigint, room: number) {
    const isPower = size >= 0 && (BigInt(size) & (BigInt(size) - 1n)) === 0n;
    if (!isPower) {
      throw new BlockError('invalid-option', 'size of ringbuf chardev must be power of two');
    }
    if (size > room) {
      const most = `ring buffers may have ${CHARDEV_LIMITS.ringBytes} bytes together`;
      throw new BlockError('no-space', `size of ringbuf chardev is too large: ${most}`);
    }
    const output = new WritableStream({
      write: (chunk: Buffer, _encoding, done) => {
        this.write(chunk);
        done();
      },
    });
    super(kind, { input: silentInput(), output });
    this.#bytes = Buffer.alloc(Number(size));
  }

  get size(): number {
    return this.#bytes.length;
  }

  write(bytes: Buffer): void {
    const size = this.#bytes.length;
    for (const byte of bytes.subarray(Math.max(0, bytes.length - size))) {
      this.#bytes[(this.#start + this.#length) % size] = byte;
      if (this.#length < size) this.#length += 1;
      else this.#start = (this.#start + 1) % size;
    }
  }

  /** Takes up to `count` of the oldest bytes. */
  read(count: number): Buffer {
    const taken = Buffer.alloc(Math.min(count, this.#length));
    for (let index = 0; index < taken.length; index += 1) {
      taken[index] = this.#bytes[(this.#start + index) % this.#bytes.length] ?? 0;
    }
    this.#length -= taken.length;
    this.#start = this.#length === 0 ? 0 : (this.#start + taken.length) % this.#bytes.length;
    return taken;
  }
}
