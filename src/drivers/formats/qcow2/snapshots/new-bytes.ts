// SPDX-License-Identifier: Apache-2.0
// Writes to clusters that nothing refers to yet: adjacent pieces go out together.
//
// Whoever fails before the header names them leaves the file as long as it was.

import { QCOW2_LIMITS } from '../../../../base/index.js';
import { SECTOR_SIZE } from '../layout.js';
import type { Qcow2Image } from '../metadata/index.js';

export class NewBytes {
  readonly #image: Qcow2Image;
  readonly #length: number;
  #offset = 0;
  #pieces: Uint8Array[] = [];
  #held = 0;

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.#length = image.file.length;
  }

  /** The bytes belong to this from now on. */
  async add(offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#held > 0 && offset !== this.#offset + this.#held) await this.flush();
    if (this.#held === 0) this.#offset = offset;
    this.#pieces.push(bytes);
    this.#held += bytes.length;
    if (this.#held >= QCOW2_LIMITS.tableWriteBytes) await this.flush();
  }

  /** The same with zeroes up to the end of the last sector: the rest of its cluster is unused. */
  async addTable(offset: number, bytes: Uint8Array): Promise<void> {
    const whole = new Uint8Array(Math.ceil(bytes.length / SECTOR_SIZE) * SECTOR_SIZE);
    whole.set(bytes);
    await this.add(offset, whole);
  }

  async flush(): Promise<void> {
    if (this.#held === 0) return;
    const joined = new Uint8Array(this.#held);
    let at = 0;
    for (const piece of this.#pieces) {
      joined.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [];
    this.#held = 0;
    await this.#image.writeFile(this.#offset, joined);
  }

  /** Gives back what the file grew by; that it stays as it is harms nobody. */
  async undo(): Promise<void> {
    const { file } = this.#image;
    this.#pieces = [];
    this.#held = 0;
    if (file.length <= this.#length) return;
    try {
      await file.truncate(this.#length, { exact: false });
    } catch {
      // The reason for giving up is what the caller is told.
    }
  }
}
