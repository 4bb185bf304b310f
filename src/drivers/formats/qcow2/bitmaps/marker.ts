// SPDX-License-Identifier: Apache-2.0
// Marks entries of a bitmap directory as in use where they stand, one piece of it after another.
//
// What is written are whole sectors that differ from those on disk in marks alone: after a power
// cut each entry is marked or as it was. Nothing is durable before the image is synced.

import { readRequest } from '../../../../block/index.js';
import type { BitmapsPlace } from '../header.js';
import { BitmapFlag, SECTOR_SIZE } from '../layout.js';
import type { Qcow2Image } from '../metadata/index.js';

const PIECE_BYTES = 1024 * 1024;

export class DirectoryMarker {
  readonly #image: Qcow2Image;
  readonly #place: BitmapsPlace;
  /** Byte of the directory, at the begin of a sector, where the piece begins. */
  #start = 0;
  #piece: Uint8Array = new Uint8Array(0);
  /** Part of the piece that has new marks; empty at first. */
  #from = Infinity;
  #to = 0;

  constructor(image: Qcow2Image, place: BitmapsPlace) {
    this.#image = image;
    this.#place = place;
  }

  /** Marks the entry whose flags begin at that byte of the directory; they come in order. */
  async mark(flagsOffset: number): Promise<void> {
    const last = flagsOffset + 3;
    if (last >= this.#start + this.#piece.length) await this.#read(last);
    const at = last - this.#start;
    const flags = this.#piece[at] ?? 0;
    if ((flags & BitmapFlag.inUse) !== 0) return;
    this.#piece[at] = flags | BitmapFlag.inUse;
    const sector = at - (at % SECTOR_SIZE);
    this.#from = Math.min(this.#from, sector);
    this.#to = Math.min(sector + SECTOR_SIZE, this.#piece.length);
  }

  /** Writes what is not written yet. */
  async finish(): Promise<void> {
    if (this.#from >= this.#to) return;
    const offset = this.#place.offset + this.#start + this.#from;
    await this.#image.writeFile(offset, this.#piece.subarray(this.#from, this.#to));
    this.#from = Infinity;
    this.#to = 0;
  }

  async #read(byte: number): Promise<void> {
    await this.finish();
    const { offset, size } = this.#place;
    this.#start = byte - (byte % SECTOR_SIZE);
    this.#piece = new Uint8Array(Math.min(PIECE_BYTES, size - this.#start));
    await this.#image.file.read(readRequest(offset + this.#start, this.#piece));
  }
}
