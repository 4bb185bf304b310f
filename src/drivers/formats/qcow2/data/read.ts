// SPDX-License-Identifier: Apache-2.0
// Reads guest data: plans in one turn, reads runs from the file, the backing node or a
// decompressor. With tables cached and children that answer inline no promise and no closure is
// made. Once something has to be waited for, the request holds a lease until it ends, so that no
// cluster it reads from is freed and reused meanwhile.

import { BlockError } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { readRequest } from '../../../../block/index.js';
import { unpackCluster } from '../../../../codec/index.js';
import { EntryKind } from '../entries.js';
import type { MetadataStore, Qcow2Image } from '../metadata/index.js';
import { RunPlan } from './plan.js';
import { nothing, runSteps } from './steps.js';
import type { Stepper } from './steps.js';

/** The buffer of one read and the guest offset of its first byte. */
interface Target {
  readonly start: number;
  readonly buffer: Uint8Array;
}

export class Reader implements Stepper<Target> {
  readonly #store: MetadataStore;
  readonly #image: Qcow2Image;
  readonly #plan: RunPlan;
  stepLength = 0;
  readonly #pastEnd: boolean;
  /** The cluster inflated last, for small sequential reads. */
  #inflated: { hi: number; lo: number; freedCount: number; bytes: Uint8Array } | null = null;

  /** With `pastEnd` it reads what is stored behind the disk as well. */
  constructor(store: MetadataStore, pastEnd = false) {
    this.#store = store;
    this.#image = store.image;
    this.#plan = new RunPlan(store.image);
    this.#pastEnd = pastEnd;
  }

  /** From here on everything reads as zeroes. */
  get end(): number {
    return this.#pastEnd ? Infinity : this.#image.size;
  }

  /** Fills `buffer`. */
  read(offset: number, buffer: Uint8Array): Eventually<void> {
    const inside = Math.min(buffer.length, Math.max(0, this.end - offset));
    if (inside < buffer.length) buffer.fill(0, inside);
    const context = { start: offset, buffer };
    return runSteps(this, { offset, length: inside }, { leases: this.#image.leases, context });
  }

  /** Forgets what was inflated (after a repair). */
  reset(): void {
    this.#inflated = null;
  }

  step(offset: number, length: number, target: Target): Eventually<void> {
    this.stepLength = 0;
    const table = this.#store.lookup(offset);
    if (table instanceof Promise) return table.then(nothing);
    const plan = this.#plan;
    plan.find(table, offset, length);
    this.stepLength = plan.length;
    const at = offset - target.start;
    const { buffer } = target;
    const whole = plan.length === buffer.length;
    const part = whole ? buffer : buffer.subarray(at, at + plan.length);
    switch (plan.kind) {
      case EntryKind.data:
        return this.#image.readData('read_aio', plan, part);
      case EntryKind.unallocated:
      case EntryKind.hosted:
        return this.#readBacking(offset, part);
      case EntryKind.compressed:
        return this.#readCompressed(offset, part);
      default:
        part.fill(0);
        return undefined;
    }
  }

  #readBacking(offset: number, part: Uint8Array): Eventually<void> {
    const { backing } = this.#image;
    const there = backing === null ? 0 : Math.min(part.length, backing.length - offset);
    if (backing === null || there <= 0) {
      part.fill(0);
      return undefined;
    }
    if (there < part.length) part.fill(0, there);
    const shown = there === part.length ? part : part.subarray(0, there);
    const held = this.#image.point('read_backing_aio');
    if (held instanceof Promise) return held.then(() => backing.read(readRequest(offset, shown)));
    return backing.read(readRequest(offset, shown));
  }

  #readCompressed(offset: number, part: Uint8Array): Eventually<void> {
    const image = this.#image;
    const { hi, lo, hostOffset, compressedLength } = this.#plan;
    const skip = offset % image.clusterSize;
    const kept = this.#inflated;
    if (kept?.hi === hi && kept.lo === lo && kept.freedCount === image.freedCount) {
      part.set(kept.bytes.subarray(skip, skip + part.length));
      return undefined;
    }
    const input = new Uint8Array(compressedLength);
    const { freedCount } = image;
    const finish = (): void => {
      const bytes = inflated(image, offset, input);
      this.#inflated = { hi, lo, freedCount, bytes };
      part.set(bytes.subarray(skip, skip + part.length));
    };
    const filled = image.readFileAt('read_compressed', hostOffset, input);
    return filled instanceof Promise ? filled.then(finish) : finish();
  }
}

function inflated(image: Qcow2Image, guestOffset: number, input: Uint8Array): Uint8Array {
  try {
    return unpackCluster(image.codec, input, image.clusterSize);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw image.corruptError(`guest offset ${guestOffset}: ${error.message}`);
  }
}
