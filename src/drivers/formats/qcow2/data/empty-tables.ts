// SPDX-License-Identifier: Apache-2.0
// L2 tables that lie in a hole of the file hold nothing: no need to read them to know.
//
// Matters for images whose large L1 table points into one giant hole: reading such tables would
// take minutes. Asked only where the image cannot change under the answer (opened read-only) and
// where there are many tables, since each look costs the host a call. Where holes cannot be seen
// such tables are read, and an image that can only be made of them is refused.

import { QCOW2_LIMITS } from '../../../../base/index.js';
import { isZero } from '../../../../codec/index.js';
import { HoleReads } from '../hole-reads.js';
import type { Qcow2Image, Table } from '../metadata/index.js';

export class EmptyTables {
  readonly #image: Qcow2Image;
  /** Null: the image has few tables. */
  readonly #reads: HoleReads | null;
  /** Tables up to this L1 entry have been counted. */
  #seen = -1;
  /** The hole found last. */
  #from = 0;
  #until = 0;
  /** The data found last: no hole begins in it. */
  #dataFrom = 0;
  #dataUntil = 0;

  constructor(image: Qcow2Image) {
    this.#image = image;
    const entries = image.l1.length / 8;
    const what = `L2 tables (l1_size ${entries})`;
    const stored = image.l1.length + image.refcountTable.length;
    const hasMany = entries > QCOW2_LIMITS.manyTables;
    this.#reads = hasMany ? new HoleReads({ what, file: image.file, stored }) : null;
  }

  /** Whether the table that covers `guestOffset` is known to be all zeroes without reading it. */
  has(guestOffset: number): boolean {
    const image = this.#image;
    if (this.#reads === null || !image.readOnly) return false;
    const offset = image.l2Offset(Math.floor(guestOffset / image.geometry.l2Coverage));
    const end = offset + image.clusterSize;
    if (offset === 0 || end > image.file.length) return false;
    if (offset >= this.#from && end <= this.#until) return true;
    if (offset >= this.#dataFrom && end <= this.#dataUntil) return false;
    const status = image.file.blockStatus(offset, image.file.length - offset, true);
    if (status instanceof Promise) return false;
    if (status.zero) {
      this.#from = offset;
      this.#until = offset + status.length;
      return end <= this.#until;
    }
    this.#dataFrom = offset;
    this.#dataUntil = offset + status.length;
    return false;
  }

  /** The table was read. Throws kind `corrupt-image` when too many hold nothing. */
  wasRead(table: Table, guestOffset: number): void {
    if (this.#reads === null) return;
    const index = Math.floor(guestOffset / this.#image.geometry.l2Coverage);
    if (index <= this.#seen) return;
    if (isZero(table.bytes)) this.#reads.add(table.offset, table.bytes.length);
    this.#seen = index;
  }
}
