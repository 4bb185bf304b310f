// SPDX-License-Identifier: Apache-2.0
// Compressed clusters: payloads (deflate or zstd) packed byte by byte, in the order they come.
//
// Payloads follow each other in host clusters that count one reference for each of them
// (alloc.ts). As with plain data the bytes are written first and the entry linked afterwards,
// under a range lock. What the codec does not make smaller is written as a plain cluster.

import { BlockError, settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { packCluster } from '../../../../codec/index.js';
import { compressedEntryHi, compressedEntryLo } from '../entries.js';
import type { ByteRun, MetadataStore, Qcow2Image, RangeLock, Table } from '../metadata/index.js';
import { nothing, runSteps } from './steps.js';
import type { Stepper } from './steps.js';
import type { Writer } from './write.js';

interface Payload {
  readonly bytes: Uint8Array;
}

interface Placed {
  readonly table: Table;
  readonly lock: RangeLock;
  readonly run: ByteRun;
}

export class Compressor implements Stepper<Payload> {
  stepLength = 0;
  readonly #store: MetadataStore;
  readonly #image: Qcow2Image;
  readonly #writer: Writer;

  constructor(store: MetadataStore, writer: Writer) {
    this.#store = store;
    this.#image = store.image;
    this.#writer = writer;
  }

  /** There is no place for bytes that are not those of the guest, or not encrypted. */
  #refuseOthers(offset: number): void {
    if (!this.#image.hasDataFile && this.#image.cipher === null) return;
    throw new BlockError('unsupported', 'Operation not supported', {
      node: this.#image.name,
      operation: 'compressed write',
      offset,
    });
  }

  /** Whole clusters, but for the last of the image, which is padded with zeroes. */
  write(offset: number, buffer: Uint8Array): Eventually<void> {
    this.#refuseOthers(offset);
    const { clusterSize, size } = this.#image;
    const end = offset + buffer.length;
    if (offset % clusterSize !== 0 || (end % clusterSize !== 0 && end !== size)) {
      throw new BlockError(
        'invalid-option',
        `compressed write at offset ${offset} of ${buffer.length} bytes is not whole clusters`,
        { node: this.#image.name, offset },
      );
    }
    for (let at = 0; at < buffer.length; at += clusterSize) {
      const step = this.#writeCluster(offset + at, buffer.subarray(at, at + clusterSize));
      if (step instanceof Promise) {
        return this.#continue(step, offset + at + clusterSize, buffer.subarray(at + clusterSize));
      }
    }
    return undefined;
  }

  /**
   * Links one cluster that is compressed already in the image's way, shorter than a cluster.
   * `offset` is the guest offset of the cluster.
   */
  writeDeflated(offset: number, payload: Uint8Array): Eventually<void> {
    this.#refuseOthers(offset);
    const { clusterSize, leases } = this.#image;
    if (offset % clusterSize !== 0 || payload.length === 0 || payload.length >= clusterSize) {
      throw new BlockError(
        'invalid-option',
        `compressed cluster at offset ${offset} of ${payload.length} bytes does not fit`,
        { node: this.#image.name, offset },
      );
    }
    const context = { bytes: payload };
    return runSteps(this, { offset, length: 1 }, { leases, context });
  }

  step(offset: number, _length: number, payload: Payload): Eventually<void> {
    this.stepLength = 0;
    const image = this.#image;
    image.assertWritable();
    const room = this.#store.makeRoom();
    if (room !== undefined) return room;
    const cluster = offset / image.clusterSize;
    const conflict = image.locks.conflict(cluster, cluster + 1);
    if (conflict !== null) return conflict;
    const table = this.#store.forWriting(offset);
    if (table instanceof Promise) return table.then(nothing);
    if (table === undefined) return undefined;
    const run = this.#store.allocator.takeBytes(payload.bytes.length);
    if (run instanceof Promise) return run;
    this.stepLength = 1;
    image.l2.pin(table);
    return this.#perform(
      { table, run, lock: image.locks.acquire(cluster, cluster + 1) },
      payload.bytes,
    );
  }

  async #continue(first: Promise<void>, offset: number, rest: Uint8Array): Promise<void> {
    const { clusterSize } = this.#image;
    await first;
    for (let at = 0; at < rest.length; at += clusterSize) {
      await this.#writeCluster(offset + at, rest.subarray(at, at + clusterSize));
    }
  }

  #writeCluster(offset: number, data: Uint8Array): Eventually<void> {
    const { clusterSize } = this.#image;
    let cluster = data;
    if (data.length < clusterSize) {
      cluster = new Uint8Array(clusterSize);
      cluster.set(data);
    }
    const payload = packCluster(this.#image.codec, cluster, clusterSize - 1);
    return payload === null
      ? this.#writer.write(offset, data)
      : this.writeDeflated(offset, payload);
  }

  #perform(placed: Placed, bytes: Uint8Array): Eventually<void> {
    let written: Eventually<void>;
    try {
      written = settle(this.#image.point('l2_update_compressed'), () =>
        this.#image.writeFileAt('write_compressed', placed.run.offset, bytes),
      );
    } catch (error) {
      this.#giveUp(placed);
      throw error;
    }
    if (!(written instanceof Promise)) return this.#link(placed);
    return written.then(
      () => this.#link(placed),
      (error: unknown) => {
        this.#giveUp(placed);
        throw error;
      },
    );
  }

  #link(placed: Placed): void {
    const { geometry } = this.#image;
    const { passDiscardOther } = this.#image.policies;
    const { table, run } = placed;
    const entry = {
      hi: compressedEntryHi({ hostOffset: run.offset, length: run.length }, geometry.clusterBits),
      lo: compressedEntryLo(run.offset),
      zeroes: 0,
      allocated: 0,
    };
    this.#store.replaceEntry(table, placed.lock.first, { entry, punch: passDiscardOther });
    this.#end(placed);
  }

  #giveUp(placed: Placed): void {
    this.#store.allocator.undoBytes(placed.run);
    this.#end(placed);
  }

  #end(placed: Placed): void {
    this.#image.l2.unpin(placed.table);
    this.#image.locks.release(placed.lock);
  }
}
