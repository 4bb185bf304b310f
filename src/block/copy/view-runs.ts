// SPDX-License-Identifier: Apache-2.0
// Block status for a walk from an image's begin to its end, asked in batches and told run by run:
// of one layer, and of a view with all its layers. What a run says is as old as its batch, so a
// walk is for views that nobody changes meanwhile, or whose data are looked at again.

import { must, settle, type Eventually } from '../../base/index.js';
import { fillStatusRuns, NOT_STORED, StatusFlag, StatusRuns } from '../block-status.js';
import type { Node } from '../node.js';
import { backingOf, skipFilters } from './chain.js';

export class LayerRuns {
  readonly node: Node;
  readonly #runs: StatusRuns;
  /** Offset where the present run begins. */
  #start = 0;
  #index = 0;

  /** `placed`: runs end where the next is not right behind in the file. */
  constructor(node: Node, placed = false) {
    this.node = node;
    this.#runs = new StatusRuns({ exact: true, placed });
  }

  /** Goes to the run at `offset`, which is in the layer; wait for a promise. */
  find(offset: number): Eventually<void> {
    const runs = this.#runs;
    if (offset < this.#start) this.#index = runs.count;
    for (; this.#index < runs.count; this.#index += 1) {
      const length = must(runs.lengths[this.#index], 'length of a run');
      if (offset < this.#start + length) return undefined;
      this.#start += length;
    }
    const range = { offset, length: this.node.length - offset };
    return settle(fillStatusRuns(this.node, range, runs), () => {
      this.#start = offset;
      this.#index = 0;
    });
  }

  /** Bytes from `offset`, which is in the present run, to the end of the run. */
  lengthFrom(offset: number): number {
    return this.#start + must(this.#runs.lengths[this.#index], 'length of a run') - offset;
  }

  /** The bytes have a place in a file. */
  get isStored(): boolean {
    return this.#runs.hostOffsets[this.#index] !== NOT_STORED;
  }

  get isAllocated(): boolean {
    return (this.flags & StatusFlag.allocated) !== 0;
  }

  /** Bytes are stored that may be other than zero. */
  get isData(): boolean {
    return (this.flags & (StatusFlag.data | StatusFlag.zero)) === StatusFlag.data;
  }

  /** Bits of StatusFlag. */
  get flags(): number {
    return must(this.#runs.flags[this.#index], 'flags of a run');
  }
}

/**
 * Whether a view reads as zeroes, run by run, and which layer's word that is. Beyond the end of the
 * layer that would have to tell it there are zeroes, which are not allocated.
 */
export class ViewRuns {
  readonly #layers: LayerRuns[] = [];
  readonly #length: number;
  /** The present run. */
  #start = 0;
  #end = 0;
  flags: number = StatusFlag.zero;
  isStored = false;

  constructor(top: Node, placed = false) {
    this.#length = top.length;
    for (let node: Node | null = top; node !== null; node = backingOf(node)) {
      this.#layers.push(new LayerRuns(skipFilters(node), placed));
    }
  }

  get isZero(): boolean {
    return (this.flags & StatusFlag.zero) !== 0;
  }

  /** Bytes from `offset`, which is in the present run, to the end of the run. */
  lengthFrom(offset: number): number {
    return this.#end - offset;
  }

  /** Goes to the run at `offset`; wait for a promise. Past the end of the view all is zero. */
  find(offset: number): Eventually<void> {
    if (offset >= this.#start && offset < this.#end) return undefined;
    return this.#look(offset);
  }

  #look(offset: number): Eventually<void> {
    this.#start = offset;
    this.#end = offset;
    this.isStored = false;
    let end = this.#length;
    for (const layer of this.#layers) {
      const { length } = layer.node;
      if (offset >= length) break;
      end = Math.min(end, length);
      const found = layer.find(offset);
      if (found instanceof Promise) return found.then(() => this.#look(offset));
      end = Math.min(end, offset + layer.lengthFrom(offset));
      if (!layer.isAllocated) continue;
      this.flags = layer.flags;
      this.isStored = layer.isStored;
      this.#end = end;
      return undefined;
    }
    this.flags = StatusFlag.zero;
    this.#end = offset < this.#length ? end : Infinity;
    return undefined;
  }
}
