// SPDX-License-Identifier: Apache-2.0
// A guest that knows, sector by sector, what it must read: what it was told is written, what is
// under way or has failed (it may read as either), and what a flush has not covered yet.
import { Permission } from '../../src/base/index.js';
import type { Random } from '../../src/base/index.js';
import type { Backend, Graph, Node } from '../../src/block/index.js';
import { readAll } from './job-stage.js';

export const SECTOR = 512;

/** What the guest may rely on at one moment. */
export interface Promised {
  readonly bytes: Uint8Array;
  /** Sectors of which nothing is promised. */
  readonly open: Uint8Array;
}

export class WatchedGuest {
  readonly backend: Backend;
  readonly #expected: Uint8Array;
  /** Per sector: a write is under way or has failed. */
  readonly #doubtful: Uint8Array;
  /** Per sector: written since the last flush. */
  readonly #unflushed: Uint8Array;
  /** Something is under way. */
  busy = false;
  /** What it was refused, or what failed under it. */
  readonly failures: unknown[] = [];

  private constructor(backend: Backend, expected: Uint8Array) {
    this.backend = backend;
    this.#expected = expected;
    this.#doubtful = new Uint8Array(expected.length / SECTOR);
    this.#unflushed = new Uint8Array(expected.length / SECTOR);
  }

  static async attach(graph: Graph, node: Node): Promise<WatchedGuest> {
    const backend = await graph.attach(node, 'guest', {
      taken: Permission.consistentRead | Permission.write,
      shared: Permission.all & ~Permission.resize,
    });
    return new WatchedGuest(backend, await readAll(node));
  }

  /** What is read as long as the program lives. */
  get view(): Promised {
    return { bytes: this.#expected.slice(), open: this.#doubtful.slice() };
  }

  /** What is found when the program is gone this moment. */
  get kept(): Promised {
    const open = this.#doubtful.map((doubt, at) => doubt | (this.#unflushed[at] ?? 0));
    return { bytes: this.#expected.slice(), open };
  }

  /** One random write, zeroing, read or flush; a failure of it is the guest's to bear. */
  async act(random: Random): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      await this.#act(random);
    } finally {
      this.busy = false;
    }
  }

  async #act(random: Random): Promise<void> {
    const { length } = this.#expected;
    const offset = random.below(length / SECTOR) * SECTOR;
    const size = Math.min(length - offset, (1 + random.below(200)) * SECTOR);
    const choice = random.below(10);
    if (choice < 5) {
      const bytes = new Uint8Array(size).fill(1 + random.below(255));
      await this.#change(offset, bytes, () => this.backend.write(offset, bytes));
    } else if (choice < 7) {
      const zeroes = new Uint8Array(size);
      await this.#change(offset, zeroes, () => this.backend.writeZeroes(offset, size));
    } else if (choice < 8) {
      await this.flush();
    } else {
      await this.#read(offset, size);
    }
  }

  async flush(): Promise<void> {
    try {
      await this.backend.flush();
      this.#unflushed.fill(0);
    } catch (error) {
      this.failures.push(error);
    }
  }

  async #change(
    offset: number,
    bytes: Uint8Array,
    change: () => unknown,
  ): Promise<void> {
    const [from, to] = [offset / SECTOR, (offset + bytes.length) / SECTOR];
    this.#doubtful.fill(1, from, to);
    this.#unflushed.fill(1, from, to);
    try {
      await change();
    } catch (error) {
      this.failures.push(error);
      return;
    }
    this.#expected.set(bytes, offset);
    this.#doubtful.fill(0, from, to);
  }

  async #read(offset: number, size: number): Promise<void> {
    const bytes = new Uint8Array(size);
    const promised = this.view;
    try {
      await this.backend.read(offset, bytes);
    } catch (error) {
      this.failures.push(error);
      return;
    }
    const wrong = brokenAt(
      { bytes: promised.bytes.subarray(offset), open: promised.open.subarray(offset / SECTOR) },
      bytes,
    );
    if (wrong >= 0) throw new Error(`the guest reads other bytes at ${offset + wrong}`);
  }
}

/** Offset of the first sector of `found` that is not as promised; −1 when all is. */
export function brokenAt({ bytes, open }: Promised, found: Uint8Array): number {
  for (let at = 0; at < found.length; at += SECTOR) {
    if (open[at / SECTOR] !== 0) continue;
    const same = Buffer.from(found.buffer, found.byteOffset + at, SECTOR).equals(
      bytes.subarray(at, at + SECTOR),
    );
    if (!same) return at;
  }
  return -1;
}
