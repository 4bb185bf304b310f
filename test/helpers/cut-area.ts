// SPDX-License-Identifier: Apache-2.0
// An encryption header's area in memory whose power can be cut: of what was not flushed, any
// sectors are left.
import type { SeededRandom } from '../../src/base/index.js';
import type { LuksArea } from '../../src/crypto/luks/index.js';

const SECTOR = 512;

export class PowerCut extends Error {}

export class CutArea implements LuksArea {
  bytes: Uint8Array;
  /** Bytes of each write. */
  readonly lengths: number[] = [];
  readonly #durable: Uint8Array;
  readonly #mostWrites: number;
  /** Written and not flushed: start and end of each. */
  #changed: (readonly [start: number, end: number])[] = [];

  /** The power goes in the write after so many. */
  constructor(bytes: Uint8Array, mostWrites = Infinity) {
    this.bytes = bytes.slice();
    this.#durable = bytes.slice();
    this.#mostWrites = mostWrites;
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(this.bytes.slice(offset, offset + length));
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.bytes.set(bytes, offset);
    this.#changed.push([offset, offset + bytes.length]);
    this.lengths.push(bytes.length);
    if (this.lengths.length > this.#mostWrites) throw new PowerCut();
  }

  async flush(): Promise<void> {
    for (const [start, end] of this.#changed) {
      this.#durable.set(this.bytes.subarray(start, end), start);
    }
    this.#changed = [];
  }

  /** As if the disk had written from its end: what lies before `start` is as it was flushed. */
  afterCutBefore(start: number): Uint8Array {
    const disk = this.bytes.slice();
    disk.set(this.#durable.subarray(0, start));
    return disk;
  }

  /** What a disk holds afterwards: each sector as it was flushed, or as it was written last. */
  afterCut(random: SeededRandom): Uint8Array {
    const disk = this.#durable.slice();
    for (const [start, end] of this.#changed) {
      for (let at = start - (start % SECTOR); at < end; at += SECTOR) {
        const sector = (random.chance(0.5) ? this.bytes : this.#durable).subarray(at, at + SECTOR);
        disk.set(sector, at);
      }
    }
    return disk;
  }
}
