// SPDX-License-Identifier: Apache-2.0
// Consistency check of a qcow2 image: counters and findings as the reference gives them.
//
// Sweeps: (1) count a reference for everything that the header, the L1 table and all L2 tables
// point to; (2) count the refcount table and its blocks; (3) compare with the refcounts on disk;
// (4) compare copied flags with those refcounts. Corruption is data that may be lost, a leak is
// space that is lost. Findings beyond a limit are counted but not worded.
//
// Only a repair writes: refcounts are mended where they stand or, when one is missing, all made
// anew (repair.ts); with that on disk, copied flags follow; last the header loses its marks. What
// the image reads as is never changed.
import { hasAny, hexBits, IMAGE_LIMITS, orBits } from '../../../base/index.js';
import { writeRequest } from '../../../block/index.js';
import { isZero } from '../../../codec/index.js';
import { EmptyTables, readWithin, ReferenceCounts, refcountAt, RefcountsOnDisk, } from './check-refcounts.js';
import { compressedHostOffset, compressedLength, EntryKind, entryHostOffset, entryKind, hasReservedL1Bits, hasReservedL2Bits, isCopied, } from './entries.js';
import { virtualSizeOf } from './header.js';
import { CORRUPT_BIT, DIRTY_BIT } from './layout.js';
import { writeRefcount } from './metadata/index.js';
import { rebuildRefcounts } from './repair.js';
export async function checkImage(file, header, repair) {
    const { fields, geometry } = header;
    const l1 = new Uint8Array(fields.l1Size * 8);
    await readWithin(file, fields.l1TableOffset, l1);
    const refcountTable = new Uint8Array(fields.refcountTableClusters * geometry.clusterSize);
    await readWithin(file, fields.refcountTableOffset, refcountTable);
    const check = new Check(file, header, { l1: new DataView(l1.buffer), refcountTable });
    return check.run(repair === 'none' ? null : repair);
}
class Check {
    #file;
    #header;
    #l1;
    #onDisk;
    #references = new ReferenceCounts();
    #fileLength;
    #clusterCount;
    #messages = [];
    /** By L1 entry: its L2 table was read and holds nothing. */
    #isEmpty;
    #emptyTables;
    /** L2 tables swept although they were swept before. */
    #repeats = 0;
    /** The last hole of the file that was met: tables in it are all zero. */
    #hole = { start: 0, end: 0 };
    #corruptions = 0;
    #leaks = 0;
    #checkErrors = 0;
    #allocated = 0;
    #fragmented = 0;
    #compressed = 0;
    #endCluster = 0;
    #leaksFixed = 0;
    #corruptionsFixed = 0;
    /** Findings that are being mended; null: they are only told. */
    #repair = null;
    /** Some refcount is missing, or a block of them cannot be used. */
    #needsRebuild = false;
    #failure = null;
    /** How often the refcount table and its blocks refer to a cluster. */
    #structures = new Map();
    constructor(file, header, tables) {
        this.#file = file;
        this.#header = header;
        this.#l1 = tables.l1;
        this.#onDisk = new RefcountsOnDisk(file, header, tables.refcountTable);
        const { l1Size } = header.fields;
        this.#isEmpty = new Uint8Array(l1Size);
        this.#emptyTables = new EmptyTables(`L2 tables (l1_size ${l1Size})`);
        this.#fileLength = file.node.length;
        this.#clusterCount = Math.ceil(this.#fileLength / header.geometry.clusterSize);
    }
    async run(repair) {
        const { fields, geometry } = this.#header;
        this.#count(0, geometry.clusterSize);
        await this.#countMappings();
        const tableBytes = fields.refcountTableClusters * geometry.clusterSize;
        this.#countStructure(fields.refcountTableOffset, tableBytes);
        const before = { corruptions: this.#corruptions, leaks: this.#leaks };
        this.#countRefcountBlocks();
        await this.#compareRefcounts();
        if (repair !== null)
            await this.#mendRefcounts(repair, before);
        // Without usable refcounts nothing can be said about the flags.
        if (this.#checkErrors === 0 && this.#failure === null) {
            this.#repair = repair;
            await this.#compareCopiedFlags();
        }
        if (repair !== null)
            await this.#clearMarks(repair);
        return this.#result();
    }
    #result() {
        const { geometry } = this.#header;
        return {
            corruptions: this.#corruptions,
            leaks: this.#leaks,
            checkErrors: this.#checkErrors,
            corruptionsFixed: this.#corruptionsFixed,
            leaksFixed: this.#leaksFixed,
            totalClusters: Math.ceil(virtualSizeOf(this.#header) / geometry.clusterSize),
            allocatedClusters: this.#allocated,
            fragmentedClusters: this.#fragmented,
            compressedClusters: this.#compressed,
            imageEndOffset: this.#endCluster * geometry.clusterSize,
            messages: this.#messages,
            ...(this.#failure !== null && { failure: this.#failure }),
        };
    }
    async #mendRefcounts(repair, before) {
        if (!this.#needsRebuild) {
            const isFine = this.#corruptions === before.corruptions && this.#leaks === before.leaks;
            if (isFine)
                return;
            this.#corruptions = before.corruptions;
            this.#leaks = before.leaks;
            this.#repair = repair;
            await this.#compareRefcounts();
            await this.#file.node.flush();
            return;
        }
        if (repair.mode !== 'all') {
            this.#say(() => 'ERROR need to rebuild refcount structures');
            this.#failure = 'Input/output error';
            return;
        }
        this.#say(() => 'Rebuilding refcount structure');
        const [file, header] = [this.#file, this.#header];
        const [references, structures] = [this.#references, this.#structures];
        const patch = (fields) => repair.patch(fields);
        const { table } = await rebuildRefcounts({ file, header, references, structures, patch });
        this.#onDisk = new RefcountsOnDisk(file, header, table);
        for (const cluster of [...structures.keys()].toSorted((a, b) => a - b)) {
            const count = structures.get(cluster) ?? 0;
            this.#say(() => `Repairing cluster ${cluster} refcount=${count} reference=0`);
        }
        this.#corruptionsFixed += this.#corruptions - before.corruptions;
        this.#leaksFixed += this.#leaks - before.leaks;
        this.#corruptions = before.corruptions;
        this.#leaks = before.leaks;
        this.#checkErrors = 0;
    }
    /** Nothing is wrong any more: the header need not say so. */
    async #clearMarks(repair) {
        if (this.#corruptions + this.#checkErrors > 0 || this.#failure !== null)
            return;
        const bits = this.#header.fields.incompatibleFeatures;
        await this.#file.node.flush();
        if (!hasAny(bits, orBits(CORRUPT_BIT, DIRTY_BIT)))
            return;
        await repair.patch({ corrupt: false, dirty: false });
        await this.#file.node.flush();
    }
    #say(message) {
        if (this.#messages.length < IMAGE_LIMITS.checkMessages)
            this.#messages.push(message());
    }
    /** The words are made only while there is room for them. */
    #corrupt(message) {
        this.#corruptions += 1;
        this.#say(message);
    }
    /** Counts one reference for each cluster that the byte range touches. */
    #count(offset, length, shown) {
        if (length === 0)
            return;
        const { clusterSize } = this.#header.geometry;
        if (offset + length - this.#fileLength >= clusterSize) {
            this.#corrupt(() => 'ERROR: counting reference for region exceeding the end of the file by one cluster ' +
                `or more: offset 0x${shown ?? offset.toString(16)} size 0x${length.toString(16)}`);
            return;
        }
        const last = Math.floor((offset + length - 1) / clusterSize);
        for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster += 1) {
            this.#references.add(cluster);
        }
    }
    #countStructure(offset, length) {
        const { clusterSize } = this.#header.geometry;
        if (length === 0 || offset + length - this.#fileLength >= clusterSize) {
            this.#count(offset, length);
            return;
        }
        this.#count(offset, length);
        const last = Math.floor((offset + length - 1) / clusterSize);
        for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster += 1) {
            this.#structures.set(cluster, (this.#structures.get(cluster) ?? 0) + 1);
        }
    }
    async #countMappings() {
        const { fields, geometry } = this.#header;
        this.#count(fields.l1TableOffset, fields.l1Size * 8);
        const bytes = new Uint8Array(geometry.clusterSize);
        for (let index = 0; index < fields.l1Size; index += 1) {
            const hi = this.#l1.getUint32(index * 8);
            const lo = this.#l1.getUint32(index * 8 + 4);
            if (hi === 0 && lo === 0)
                continue;
            if (hasReservedL1Bits(hi, lo)) {
                this.#corrupt(() => `ERROR found L1 entry with reserved bits set: ${hexBits({ hi, lo })}`);
            }
            const offset = entryHostOffset(hi, lo);
            const again = this.#references.get(Math.floor(offset / geometry.clusterSize)) > 0;
            this.#count(offset, geometry.clusterSize);
            if (offset % geometry.clusterSize !== 0) {
                const place = offset.toString(16);
                this.#corrupt(() => `ERROR l2_offset=${place}: Table is not cluster aligned; L1 entry corrupted`);
            }
            // Said already; and awaiting for each of four million entries would take seconds.
            if (offset >= this.#fileLength || (again && !this.#mayRepeat()))
                continue;
            if (await this.#readTable(index, offset, bytes))
                this.#countL2Table(bytes);
        }
    }
    /** False when the L2 table of an L1 entry holds nothing, which is found out only once. */
    async #readTable(index, offset, bytes) {
        if (this.#isEmpty[index] === 1)
            return false;
        let empty = await this.#isTableEmpty(offset);
        if (!empty) {
            await readWithin(this.#file, offset, bytes);
            empty = isZero(bytes);
            if (empty)
                this.#emptyTables.add(bytes.length);
        }
        if (empty)
            this.#isEmpty[index] = 1;
        return !empty;
    }
    /** Beyond the end of the file or in a hole; holes are remembered, so a sparse file is fast. */
    async #isTableEmpty(offset) {
        if (offset >= this.#fileLength)
            return true;
        const end = Math.min(this.#fileLength, offset + this.#header.geometry.clusterSize);
        if (offset >= this.#hole.start && end <= this.#hole.end)
            return true;
        const length = this.#fileLength - offset;
        const status = await this.#file.node.blockStatus(offset, length, true);
        if (!status.zero)
            return false;
        this.#hole = { start: offset, end: offset + status.length };
        return end <= this.#hole.end;
    }
    /** One table shared by all of L1 would make a check endless. */
    #mayRepeat() {
        this.#repeats += 1;
        return this.#repeats <= IMAGE_LIMITS.checkRepeats;
    }
    #countL2Table(bytes) {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        const { clusterBits, clusterSize } = this.#header.geometry;
        const { version } = this.#header.fields;
        let next = 0;
        for (let at = 0; at < bytes.length; at += 8) {
            const hi = view.getUint32(at);
            const lo = view.getUint32(at + 4);
            if (hi === 0 && lo === 0)
                continue;
            const kind = entryKind(hi, lo, 3);
            if (kind === EntryKind.compressed) {
                this.#countCompressed(hi, lo, clusterBits);
                continue;
            }
            if (hasReservedL2Bits(hi, lo, version)) {
                this.#corrupt(() => `ERROR found l2 entry with reserved bits set: ${hexBits({ hi, lo })}`);
            }
            if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated)
                continue;
            const offset = entryHostOffset(hi, lo);
            this.#allocated += 1;
            if (next !== 0 && offset !== next)
                this.#fragmented += 1;
            next = offset + clusterSize;
            this.#count(offset, clusterSize);
            if (offset % clusterSize !== 0) {
                const what = kind === EntryKind.data ? 'Data' : 'Preallocated';
                this.#corrupt(() => `ERROR offset=${offset.toString(16)}: ${what} cluster is not properly aligned; ` +
                    'L2 entry corrupted.');
            }
        }
    }
    #countCompressed(hi, lo, clusterBits) {
        // Such an offset may have more digits than a number holds; then only the message needs them.
        const shown = hexBits({ hi: hi & (2 ** (38 - clusterBits) - 1), lo });
        if (isCopied(hi)) {
            this.#corrupt(() => `ERROR: coffset=0x${shown}: copied flag must never be set for ` +
                'compressed clusters');
        }
        const offset = compressedHostOffset(hi, lo, clusterBits);
        this.#count(offset, compressedLength(hi, lo, clusterBits), shown);
        this.#allocated += 1;
        this.#compressed += 1;
        // Compressed data shares sectors with its neighbours, so it always counts as fragmented.
        this.#fragmented += 1;
    }
    #countRefcountBlocks() {
        const { clusterSize } = this.#header.geometry;
        for (let index = 0; index < this.#onDisk.tableEntries; index += 1) {
            const offset = this.#onDisk.blockOffset(index);
            const found = this.#corruptions;
            if ((this.#onDisk.entryLo(index) & 0x1ff) !== 0) {
                this.#corrupt(() => `ERROR refcount table entry ${index} has reserved bits set`);
            }
            else if (offset % clusterSize !== 0) {
                this.#corrupt(() => `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`);
            }
            else if (offset / clusterSize >= this.#clusterCount) {
                this.#corrupt(() => `ERROR refcount block ${index} is outside image`);
            }
            else if (offset !== 0) {
                this.#countStructure(offset, clusterSize);
                const count = this.#references.get(offset / clusterSize);
                if (count !== 1)
                    this.#corrupt(() => `ERROR refcount block ${index} refcount=${count}`);
            }
            this.#needsRebuild ||= this.#corruptions > found;
        }
    }
    async #compareRefcounts() {
        const { refcountBlockEntries, refcountBits } = this.#header.geometry;
        let cluster = 0;
        while (cluster < this.#clusterCount) {
            const index = Math.floor(cluster / refcountBlockEntries);
            const end = Math.min(this.#clusterCount, (index + 1) * refcountBlockEntries);
            if (index >= this.#onDisk.tableEntries) {
                this.#compareUncounted(cluster, this.#clusterCount);
                return;
            }
            const none = this.#onDisk.blockOffset(index) === 0;
            const block = await this.#onDisk.block(index);
            if (block === null)
                this.#refuseBlock(cluster, end);
            else if (none || isZero(block))
                this.#compareUncounted(cluster, end);
            else {
                const mended = this.#repair === null ? null : block.slice();
                for (let at = cluster; at < end; at += 1) {
                    const refcount = refcountAt(block, at % refcountBlockEntries, refcountBits);
                    const references = this.#references.get(at);
                    if (mended === null)
                        this.#compare(at, refcount, references);
                    else
                        this.#mend(mended, at, { refcount, references });
                }
                if (mended !== null)
                    await this.#onDisk.replace(index, mended);
            }
            cluster = end;
        }
    }
    /** Clusters whose refcounts are all zero: those with references are gone through. */
    #compareUncounted(from, end) {
        for (let at = this.#references.next(from); at < end; at = this.#references.next(at + 1)) {
            this.#compare(at, 0, this.#references.get(at));
        }
    }
    /** Corrects a refcount in its block where it may be corrected there. */
    #mend(block, cluster, found) {
        const { refcount, references } = found;
        const { refcountBlockEntries, refcountOrder, maxRefcount } = this.#header.geometry;
        const isLeak = refcount > references;
        const isCorruption = refcount < references && this.#repair?.mode === 'all';
        if (!isLeak && (!isCorruption || references > maxRefcount)) {
            this.#compare(cluster, refcount, references);
            return;
        }
        this.#say(() => `Repairing cluster ${cluster} refcount=${refcount} reference=${references}`);
        if (isLeak)
            this.#leaksFixed += 1;
        else
            this.#corruptionsFixed += 1;
        const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
        const place = { order: refcountOrder, index: cluster % refcountBlockEntries };
        writeRefcount(view, place, references);
    }
    #refuseBlock(from, end) {
        this.#needsRebuild = true;
        this.#checkErrors += end - from;
        const worded = Math.min(end, from + IMAGE_LIMITS.checkMessages - this.#messages.length);
        for (let at = from; at < worded; at += 1) {
            this.#say(() => `Can't get refcount for cluster ${at}: Input/output error`);
        }
    }
    #compare(cluster, refcount, references) {
        if (refcount > 0 || references > 0)
            this.#endCluster = cluster + 1;
        if (refcount === references)
            return;
        const facts = () => `cluster ${cluster} refcount=${refcount} reference=${references}`;
        if (refcount > references) {
            this.#leaks += 1;
            this.#say(() => `Leaked ${facts()}`);
        }
        else {
            this.#needsRebuild ||= refcount === 0;
            this.#corrupt(() => `ERROR ${facts()}`);
        }
    }
    /** A copied flag is wrong: it is to be turned if the answer is true. */
    #wrongFlag(facts) {
        if (this.#repair === null) {
            this.#corrupt(() => `ERROR OFLAG_COPIED ${facts()}`);
            return false;
        }
        this.#corruptionsFixed += 1;
        this.#say(() => `Repairing OFLAG_COPIED ${facts()}`);
        return true;
    }
    async #compareCopiedFlags() {
        const { fields, geometry } = this.#header;
        const { refcountBlockEntries, refcountBits } = geometry;
        const bytes = new Uint8Array(geometry.clusterSize);
        let blockIndex = -1;
        let block = null;
        this.#repeats = 0;
        const seen = new Set();
        for (let index = 0; index < fields.l1Size; index += 1) {
            const hi = this.#l1.getUint32(index * 8);
            const lo = this.#l1.getUint32(index * 8 + 4);
            const offset = entryHostOffset(hi, lo);
            if (offset === 0)
                continue;
            const cluster = Math.floor(offset / geometry.clusterSize);
            const wanted = Math.floor(cluster / refcountBlockEntries);
            if (wanted !== blockIndex) {
                const found = this.#onDisk.block(wanted);
                block = found instanceof Promise ? await found : found;
            }
            blockIndex = wanted;
            const refcount = block === null ? 0 : refcountAt(block, cluster % refcountBlockEntries, refcountBits);
            if ((refcount === 1) !== isCopied(hi)) {
                const facts = () => `L2 cluster: l1_index=${index} l1_entry=${hexBits({ hi, lo })} refcount=${refcount}`;
                if (this.#wrongFlag(facts)) {
                    const entry = new Uint8Array(8);
                    const view = new DataView(entry.buffer);
                    view.setUint32(0, turned(hi));
                    view.setUint32(4, lo);
                    const place = fields.l1TableOffset + index * 8;
                    await this.#file.node.write(writeRequest(place, entry));
                }
            }
            if (this.#isEmpty[index] === 1 || offset >= this.#fileLength)
                continue;
            if (seen.has(offset) && !this.#mayRepeat())
                continue;
            seen.add(offset);
            if (!(await this.#readTable(index, offset, bytes)))
                continue;
            if (await this.#compareL2Flags(bytes)) {
                await this.#file.node.write(writeRequest(offset, bytes));
            }
        }
    }
    /** True when flags were turned in `bytes`. */
    async #compareL2Flags(bytes) {
        let isTurned = false;
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        const { clusterSize, refcountBlockEntries, refcountBits } = this.#header.geometry;
        let blockIndex = -1;
        let block = null;
        for (let at = 0; at < bytes.length; at += 8) {
            const hi = view.getUint32(at);
            const lo = view.getUint32(at + 4);
            const kind = entryKind(hi, lo, 3);
            if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated)
                continue;
            const cluster = Math.floor(entryHostOffset(hi, lo) / clusterSize);
            const wanted = Math.floor(cluster / refcountBlockEntries);
            if (wanted !== blockIndex) {
                blockIndex = wanted;
                block = await this.#onDisk.block(wanted);
            }
            const refcount = block && refcountAt(block, cluster % refcountBlockEntries, refcountBits);
            if ((refcount === 1) === isCopied(hi))
                continue;
            const facts = () => `data cluster: l2_entry=${hexBits({ hi, lo })} refcount=${refcount}`;
            if (!this.#wrongFlag(facts))
                continue;
            view.setUint32(at, turned(hi));
            isTurned = true;
        }
        return isTurned;
    }
}
/** The upper half of an entry with the other copied flag. */
function turned(hi) {
    return (hi ^ 0x8000_0000) >>> 0;
}
