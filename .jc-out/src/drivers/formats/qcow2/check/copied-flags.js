// SPDX-License-Identifier: Apache-2.0
// Compares the copied flags of the active L1 table and its L2 tables with the refcounts on disk.
//
// A flag says that the refcount of what an entry names is exactly one. A wrong one is turned where
// it stands when the check repairs; nothing else of an entry changes.
import { hexBits, settle } from '../../../../base/index.js';
import { writeRequest } from '../../../../block/index.js';
import { EntryKind, entryHostOffset, entryKind, isCopied } from '../entries.js';
import { refcountAt } from './refcounts-on-disk.js';
export class CopiedFlags {
    #context;
    /** The refcount block used last. */
    #blockIndex = -1;
    #block = null;
    constructor(context) {
        this.#context = context;
    }
    async compare(l1Offset, tables) {
        const { file } = this.#context;
        const fileLength = file.node.length;
        tables.restart();
        for (let index = 0; index < tables.entries; index += 1) {
            const offset = tables.offset(index);
            if (offset === 0)
                continue;
            const found = this.#compareL1Entry(tables, index);
            if (found instanceof Promise ? await found : found) {
                await this.#turnL1Entry(l1Offset + index * 8, tables, index);
            }
            const times = offset >= fileLength ? 0 : tables.visits(offset);
            if (times === 0)
                continue;
            const read = tables.read(index);
            const bytes = read instanceof Promise ? await read : read;
            if (bytes === null)
                continue;
            const isTurned = await this.#compareTable(bytes, times);
            if (isTurned)
                await file.node.write(writeRequest(offset, bytes));
        }
    }
    /** True when the flag is to be turned. */
    #compareL1Entry(tables, index) {
        const hi = tables.hi(index);
        return settle(this.#refcountOf(tables.offset(index)), (refcount) => {
            if ((refcount === 1) === isCopied(hi))
                return false;
            const entry = hexBits({ hi, lo: tables.lo(index) });
            const facts = () => `L2 cluster: l1_index=${index} l1_entry=${entry} refcount=${refcount ?? 0}`;
            return this.#isTurned(facts, 1);
        });
    }
    async #turnL1Entry(place, tables, index) {
        const entry = new Uint8Array(8);
        const view = new DataView(entry.buffer);
        view.setUint32(0, turned(tables.hi(index)));
        view.setUint32(4, tables.lo(index));
        await this.#context.file.node.write(writeRequest(place, entry));
    }
    /** True when flags were turned in `bytes`. */
    async #compareTable(bytes, times) {
        let isAnyTurned = false;
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        for (let at = 0; at < bytes.length; at += 8) {
            const hi = view.getUint32(at);
            const lo = view.getUint32(at + 4);
            const kind = entryKind(hi, lo, 3);
            if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated)
                continue;
            const found = this.#refcountOf(entryHostOffset(hi, lo));
            const refcount = found instanceof Promise ? await found : found;
            if ((refcount === 1) === isCopied(hi))
                continue;
            const facts = () => `data cluster: l2_entry=${hexBits({ hi, lo })} refcount=${refcount}`;
            if (!this.#isTurned(facts, times))
                continue;
            view.setUint32(at, turned(hi));
            isAnyTurned = true;
        }
        return isAnyTurned;
    }
    /** Null where the block of refcounts cannot be used. */
    #refcountOf(offset) {
        const { geometry } = this.#context.header;
        const cluster = Math.floor(offset / geometry.clusterSize);
        const index = Math.floor(cluster / geometry.refcountBlockEntries);
        const at = cluster % geometry.refcountBlockEntries;
        if (index !== this.#blockIndex) {
            const block = this.#context.onDisk.block(index);
            if (block instanceof Promise)
                return block.then((bytes) => this.#keep(index, bytes, at));
            return this.#keep(index, block, at);
        }
        return this.#block && refcountAt(this.#block, at, geometry.refcountBits);
    }
    #keep(index, block, at) {
        this.#blockIndex = index;
        this.#block = block;
        return block && refcountAt(block, at, this.#context.header.geometry.refcountBits);
    }
    /** A flag is wrong: it is to be turned if the answer is true. */
    #isTurned(facts, times) {
        const { findings, isRepaired } = this.#context;
        if (!isRepaired) {
            findings.corrupt(() => `ERROR OFLAG_COPIED ${facts()}`, times);
            return false;
        }
        findings.corruptionsFixed += 1;
        findings.say(() => `Repairing OFLAG_COPIED ${facts()}`);
        return true;
    }
}
/** The upper half of an entry with the other copied flag. */
function turned(hi) {
    return (hi ^ 0x8000_0000) >>> 0;
}
