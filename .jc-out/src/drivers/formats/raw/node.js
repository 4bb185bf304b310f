// SPDX-License-Identifier: Apache-2.0
// A node that shows its child's bytes, shifted by `offset` and cut at `size`.
//
// Without a window, requests are handed on as they are. Permissions are those of the parents; a
// window does not share resizing, for it would move.
import { BlockError, MAX_OFFSET, Permission, settle, } from '../../../base/index.js';
const SECTOR_BYTES = 512;
export class RawNode {
    growsOnWrite;
    reopen;
    #file;
    #offset;
    #size;
    constructor(parts) {
        this.#file = parts.file;
        this.#offset = parts.offset;
        this.#size = parts.size;
        this.reopen = parts.reopen;
        this.growsOnWrite = parts.size === null;
    }
    get length() {
        const rest = Math.max(0, this.#file.node.length - this.#offset);
        // Another, shorter file may have come below the window.
        return Math.min(this.#size ?? Infinity, Math.ceil(rest / SECTOR_BYTES) * SECTOR_BYTES);
    }
    /** The child pads what does not fit it; a window must not pad here, where other bytes lie. */
    get limits() {
        const { maxTransfer, optimalZeroes, optimalDiscard } = this.#file.node.limits;
        return { requestAlignment: 1, maxTransfer, optimalZeroes, optimalDiscard };
    }
    debugEvent(event, canWait) {
        return this.#file.node.driverNode.debugEvent?.(event, canWait);
    }
    childPermissions(_child, parents) {
        const { shared } = parents;
        const windowed = this.#size !== null || this.#offset !== 0;
        return { taken: parents.taken, shared: windowed ? shared & ~Permission.resize : shared };
    }
    read(request) {
        const shifted = this.#shift(request);
        if (this.#offset % SECTOR_BYTES === 0)
            return this.#file.node.read(shifted);
        return this.#readUneven(request, shifted);
    }
    /** A window that begins between sectors may end past its child, by the rounding of its size. */
    #readUneven(request, shifted) {
        const inside = this.#inside(request.offset, request.length);
        request.buffer?.fill(0, inside);
        if (inside === 0)
            return undefined;
        const buffer = shifted.buffer?.subarray(0, inside) ?? null;
        return this.#file.node.read({ ...shifted, length: inside, buffer });
    }
    write(request) {
        return this.#file.node.write(this.#shift(request));
    }
    writeZeroes(request) {
        return this.#file.node.writeZeroes(this.#shift(request));
    }
    discard(request) {
        return this.#file.node.discard(this.#shift(request));
    }
    blockStatus(offset, length, exact) {
        const inside = this.#inside(offset, length);
        if (inside === 0)
            return zeroStatus(length);
        return this.#file.node.blockStatus(offset + this.#offset, inside, exact);
    }
    truncate(size, options) {
        if (this.#size !== null) {
            throw new BlockError('unsupported', 'Cannot resize fixed-size raw disks');
        }
        if (size > MAX_OFFSET - this.#offset) {
            throw new BlockError('invalid-option', 'Disk size too large for the chosen offset');
        }
        return this.#file.node.truncate(size + this.#offset, options);
    }
    planExtents(offset, length) {
        const inside = this.#inside(offset, length);
        if (inside < length)
            return null;
        return this.#file.node.planExtents(offset + this.#offset, length);
    }
    lease() {
        return this.#file.node.lease();
    }
    reserve(offset, length) {
        const below = this.#file.node.reserve(offset + this.#offset, length);
        if (this.#offset === 0)
            return below;
        return settle(below, (reservation) => {
            if (reservation === null)
                return null;
            const pieces = reservation.pieces.map((piece) => ({
                ...piece,
                offset: piece.offset - this.#offset,
            }));
            return {
                pieces,
                link: (outcomes) => reservation.link(outcomes),
                abandon: () => reservation.abandon(),
            };
        });
    }
    close() {
        return Promise.resolve();
    }
    #shift(request) {
        return this.#offset === 0 ? request : { ...request, offset: request.offset + this.#offset };
    }
    /** How much of the range the child has; less only where the size was rounded up. */
    #inside(offset, length) {
        return Math.max(0, Math.min(length, this.#file.node.length - this.#offset - offset));
    }
}
function zeroStatus(length) {
    return { length, allocated: true, data: false, zero: true, compressed: false };
}
