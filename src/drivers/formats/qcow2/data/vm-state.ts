// SPDX-License-Identifier: Apache-2.0
// The state of a machine (`io read -b`, `io write -b`): guest clusters behind the disk, from the
// first one on that no L2 table of the disk covers. Internal snapshots hold it with everything
// else that the L1 table names, and say how long it is; the image itself does not.
//
// It is written as guest data is, in the same order: the L1 table is made long enough first, then
// data, refcounts, L2 entries. A power cut leaves an L1 table with empty entries at worst.

import { BlockError, IMAGE_LIMITS, MAX_OFFSET, settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import type { VmState } from '../../../../block/index.js';
import { l1EntriesFor, SECTOR_SIZE } from '../layout.js';
import { growL1 } from '../metadata/index.js';
import type { MetadataStore } from '../metadata/index.js';
import { Reader } from './read.js';
import { Writer } from './write.js';

const ENTRY_BYTES = 8;
/** What positions in the file formats and programs end before. */
const POSITION_END = 2 ** 63;
const MOST_ENTRIES = IMAGE_LIMITS.qcow2L1Bytes / ENTRY_BYTES;

export class Qcow2VmState implements VmState {
  readonly #store: MetadataStore;
  readonly #requireWritable: () => Promise<void>;
  readonly #reader: Reader;
  readonly #writer: Writer;
  /** Growths, and writes of parts of sectors, one after another; never rejects. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(store: MetadataStore, requireWritable: () => Promise<void>) {
    this.#store = store;
    this.#requireWritable = requireWritable;
    this.#reader = new Reader(store, true);
    this.#writer = new Writer(store, this.#reader);
  }

  get offset(): number {
    const { size, geometry } = this.#store.image;
    return l1EntriesFor(size, geometry) * geometry.l2Coverage;
  }

  read(position: number, buffer: Uint8Array): Eventually<void> {
    const offset = this.#place(position, buffer.length);
    return settle(this.#store.image.point('vmstate_load'), () => {
      if (offset + buffer.length > MAX_OFFSET) {
        buffer.fill(0);
        return undefined;
      }
      if (this.#isWhole(offset, buffer)) return this.#reader.read(offset, buffer);
      const { bytes, head } = wholeSectors(offset, buffer.length);
      return settle(this.#reader.read(offset - head, bytes), () => {
        buffer.set(bytes.subarray(head, head + buffer.length));
      });
    });
  }

  async write(position: number, buffer: Uint8Array): Promise<void> {
    await this.#requireWritable();
    const offset = this.#place(position, buffer.length);
    await this.#store.image.point('vmstate_save');
    await this.#reach(offset + buffer.length);
    if (this.#isWhole(offset, buffer)) await this.#writer.write(offset, buffer);
    else await this.#inTurn(() => this.#writeInSectors(offset, buffer));
  }

  /** Encrypted data comes and goes in sectors; what is not encrypted in any number of bytes. */
  #isWhole(offset: number, { length }: Uint8Array): boolean {
    if (this.#store.image.cipher === null) return true;
    return offset % SECTOR_SIZE === 0 && length % SECTOR_SIZE === 0;
  }

  async #writeInSectors(offset: number, buffer: Uint8Array): Promise<void> {
    const { bytes, head } = wholeSectors(offset, buffer.length);
    await this.#reader.read(offset - head, bytes);
    bytes.set(buffer, head);
    await this.#writer.write(offset - head, bytes);
  }

  /** Forgets what was inflated. */
  reset(): void {
    this.#reader.reset();
  }

  #place(position: number, length: number): number {
    const offset = this.offset + position;
    if (offset + length < POSITION_END) return offset;
    throw new BlockError('out-of-range', `VM state: ${length} bytes at ${position} are too far`);
  }

  async #reach(end: number): Promise<void> {
    await this.#inTurn(() => this.#grow(end));
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    await done;
  }

  /** By half of its length at least: a state is mostly written in pieces, one after another. */
  async #grow(end: number): Promise<void> {
    const { l1, geometry } = this.#store.image;
    const present = l1.length / ENTRY_BYTES;
    const wanted = Math.ceil(end / geometry.l2Coverage);
    if (wanted <= present) return;
    const spare = Math.min(MOST_ENTRIES, Math.ceil(present * 1.5));
    await growL1(this.#store, Math.max(wanted, spare));
  }
}

/** Room for the sectors that a range touches, `head` bytes of them before it. */
function wholeSectors(offset: number, length: number): { bytes: Uint8Array; head: number } {
  const head = offset % SECTOR_SIZE;
  const sectors = Math.ceil((head + length) / SECTOR_SIZE);
  return { bytes: new Uint8Array(sectors * SECTOR_SIZE), head };
}
