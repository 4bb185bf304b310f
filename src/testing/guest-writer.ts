// SPDX-License-Identifier: Apache-2.0
// A guest that writes to a disk at random, from a seed, and keeps its model in step: the model
// changes when the disk has acknowledged. One request at a time, so model and disk never race.
import type { Eventually, Random } from '../base/index.js';
import { settle } from '../base/index.js';
import type { DiskModel } from './disk-model.js';

/** The part of a backend that the guest uses. */
export interface GuestDisk {
  write(offset: number, buffer: Uint8Array): Eventually<void>;
  writeZeroes(offset: number, length: number): Eventually<void>;
  flush(): Eventually<void>;
}

export interface GuestWriterOptions {
  readonly disk: GuestDisk;
  readonly model: DiskModel;
  readonly random: Random;
  /** Offsets and lengths are multiples of it; 512 unless given. */
  readonly sector?: number;
  /** Longest write in bytes; 64 KiB unless given. */
  readonly longest?: number;
}

const FLUSH_CHANCE = 0.05;
const ZERO_CHANCE = 0.1;

export class GuestWriter {
  readonly #options: GuestWriterOptions;
  readonly #sector: number;
  readonly #longest: number;
  #writtenBytes = 0;

  constructor(options: GuestWriterOptions) {
    this.#options = options;
    this.#sector = options.sector ?? 512;
    this.#longest = options.longest ?? 64 * 1024;
  }

  /** Bytes acknowledged so far, zeroes included. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** One random request; the model knows of it when the result has come. */
  step(): Eventually<void> {
    const { disk, model, random } = this.#options;
    if (random.chance(FLUSH_CHANCE)) return disk.flush();
    const sectorCount = Math.floor(model.length / this.#sector);
    const first = random.below(sectorCount);
    const most = Math.min(this.#longest / this.#sector, sectorCount - first);
    const offset = first * this.#sector;
    const length = (1 + random.below(most)) * this.#sector;
    if (random.chance(ZERO_CHANCE)) {
      return settle(disk.writeZeroes(offset, length), () => {
        model.writeZeroes(offset, length);
        this.#writtenBytes += length;
      });
    }
    const data = new Uint8Array(length);
    random.fill(data);
    return settle(disk.write(offset, data), () => {
      model.write(offset, data);
      this.#writtenBytes += length;
    });
  }
}
