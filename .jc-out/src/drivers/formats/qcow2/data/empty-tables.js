// SPDX-License-Identifier: Apache-2.0
// L2 tables that lie in a hole of the file hold nothing: no need to read them to know.
//
// Matters for images whose large L1 table points into one giant hole: reading such tables would
// take minutes. Asked only where the image cannot change under the answer (opened read-only) and
// where there are many tables, since each look costs the host a call.
import { QCOW2_LIMITS } from '../../../../base/index.js';
export class EmptyTables {
    #image;
    #asks;
    /** The hole found last. */
    #from = 0;
    #until = 0;
    /** The data found last: no hole begins in it. */
    #dataFrom = 0;
    #dataUntil = 0;
    constructor(image) {
        this.#image = image;
        this.#asks = image.readOnly && image.l1.length / 8 > QCOW2_LIMITS.manyTables;
    }
    /** Whether the table that covers `guestOffset` is known to be all zeroes without reading it. */
    has(guestOffset) {
        if (!this.#asks)
            return false;
        const image = this.#image;
        const offset = image.l2Offset(Math.floor(guestOffset / image.geometry.l2Coverage));
        const end = offset + image.clusterSize;
        if (offset === 0 || end > image.file.length)
            return false;
        if (offset >= this.#from && end <= this.#until)
            return true;
        if (offset >= this.#dataFrom && end <= this.#dataUntil)
            return false;
        const status = image.file.blockStatus(offset, image.file.length - offset, true);
        if (status instanceof Promise)
            return false;
        if (status.zero) {
            this.#from = offset;
            this.#until = offset + status.length;
            return end <= this.#until;
        }
        this.#dataFrom = offset;
        this.#dataUntil = offset + status.length;
        return false;
    }
}
