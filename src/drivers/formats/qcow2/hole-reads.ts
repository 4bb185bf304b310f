// SPDX-License-Identifier: Apache-2.0
// Tables that are read to find nothing in them: a sparse file may have any number, and a host that
// cannot see holes has to read each. How much is read in vain is bounded.
//
// Tables far from each other cost the most, since the kernel reads ahead: many are refused only
// where they cannot all be stored, for the file has fewer bytes than they would take.

import { BlockError, IMAGE_LIMITS } from '../../../base/index.js';
import type { Node } from '../../../block/index.js';

/** A host stores no less for a table by itself. */
const PAGE = 4096;

export interface HoleReadsOptions {
  /** Names the tables and the field that gives their number. */
  readonly what: string;
  readonly file: Node;
  /** Bytes of the file that are known to be stored: those of the tables of tables. */
  readonly stored: number;
  /** In all, as `cost` counts them; reads far from each other are bounded in any case. */
  readonly most?: number;
}

export class HoleReads {
  readonly #options: HoleReadsOptions;
  #count = 0;
  #cost = 0;
  #farBytes = 0;
  #pages = 0;
  #end = 0;

  constructor(options: HoleReadsOptions) {
    this.#options = options;
  }

  /** A table of `length` bytes was all zeroes. Throws kind `corrupt-image` when it is enough. */
  add(offset: number, length: number): void {
    const distance = Math.abs(offset - this.#end);
    this.#end = offset + length;
    this.#count += 1;
    this.#cost += length + IMAGE_LIMITS.emptyTableCost;
    this.#farBytes += length + Math.min(distance, IMAGE_LIMITS.emptyTableReadAhead);
    this.#pages += distance < PAGE ? length : Math.max(length, PAGE);
    if (this.#cost <= (this.#options.most ?? Infinity) && !this.#isUnbelievable()) return;
    const { what } = this.#options;
    throw new BlockError(
      'corrupt-image',
      `Too many empty tables: ${this.#count} of the ${what} hold nothing`,
      { errno: 'EIO' },
    );
  }

  #isUnbelievable(): boolean {
    if (this.#farBytes <= IMAGE_LIMITS.emptyTableFarBytes) return false;
    const allocated = allocatedBytes(this.#options.file);
    if (allocated !== null && this.#pages > allocated - this.#options.stored) return true;
    this.#farBytes = 0;
    return false;
  }
}

/** Bytes the host has allocated for what stores the node's data; null when that is no file. */
export function allocatedBytes(node: Node): number | null {
  for (let at: Node | null = node; at !== null; at = at.primary) {
    const file = at.driverNode.hostFile;
    if (file !== undefined) return file.allocatedBytes();
  }
  return null;
}
