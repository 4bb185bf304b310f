// SPDX-License-Identifier: Apache-2.0
// The one way in which bulk data goes from node to node: plan, lanes, link.
//
// A CopySession copies ranges of a source's view into a target. Each range is one bounded batch:
// every layer of the source is leased and entered, its host ranges are planned, target space is
// reserved, lanes fill it, and linking (compare-and-set: a guest's write wins) makes it visible.
// Where a node says "no", the same bytes go through read() and write(). Zeroes are never read or
// written as data. Failures are values that name their side; the caller's policy decides.
import { assert, BlockError, must, toBlockError } from '../../base/index.js';
import { RequestFlag, writeRequest, zeroRequest } from '../request.js';
import { nodesOfView, planView } from './chain.js';
import { copyThroughGraph, turnFlag, zeroFlags } from './graph-copy.js';
import { allZero, cutParts, dataSpans, FileTable, gapsBetween, laneParts, pieceStep, } from './lane-plan.js';
export class CopyEngine {
    lanes;
    #lanesFor;
    /** `lanesFor`: who copies from a node, if not `lanes`; asked when a session begins. */
    constructor(options) {
        this.lanes = options.lanes;
        this.#lanesFor = options.lanesFor ?? (() => null);
    }
    open(spec) {
        return new CopySession(this.#lanesFor(spec.source.node) ?? this.lanes, spec);
    }
    close() {
        return this.lanes.close();
    }
}
export class CopySession {
    spec;
    #lanes;
    #cancel = new Int32Array(new SharedArrayBuffer(4));
    #freeSlabs = [];
    /** Ends when the compressed clusters of every earlier range are written. */
    #packed = Promise.resolve();
    constructor(lanes, spec) {
        this.#lanes = lanes;
        // Less than a cluster cannot be left out of one: it would be read, merged and written again.
        const cluster = spec.target.node.info.clusterSize ?? 0;
        const zeroGranularity = spec.hostCopies === true ? 0 : spec.zeroGranularity;
        this.spec = {
            ...spec,
            zeroGranularity: zeroGranularity === 0 ? 0 : Math.max(zeroGranularity, cluster),
        };
    }
    /** Batches in flight stop before their next step, with kind `cancelled`; files stay whole. */
    cancel() {
        Atomics.store(this.#cancel, 0, 1);
    }
    /** Copies one batch; `offset` is a multiple of the unit. Null when all of it is copied. */
    async copy(offset, length) {
        const earlier = this.#packed;
        let endTurn = () => undefined;
        if (this.spec.compress === true) {
            this.#packed = new Promise((resolve) => {
                endTurn = resolve;
            });
        }
        const exits = [];
        const leaveSource = () => {
            for (const exit of exits.splice(0))
                exit();
        };
        try {
            this.#enterSource({ offset, length }, exits);
            return await this.#copyEntered({ offset, length }, { earlier, leaveSource });
        }
        catch (error) {
            return { side: 'source', error: toBlockError(error) };
        }
        finally {
            leaveSource();
            endTurn();
        }
    }
    /** Makes the range of the target read as zeroes, however long it is. */
    async zero(offset, length) {
        return this.spec.targetIsZero === true ? null : this.#writeZeroes({ offset, length });
    }
    async #writeZeroes({ offset, length }) {
        try {
            const request = zeroRequest(offset, length, zeroFlags(this.spec));
            const result = this.spec.target.node.writeZeroes(request);
            if (result instanceof Promise)
                await result;
            return null;
        }
        catch (error) {
            return { side: 'target', error: toBlockError(error) };
        }
    }
    async #copyEntered(span, { earlier, leaveSource }) {
        const { spec } = this;
        if (spec.fill === undefined && turnFlag(spec) !== RequestFlag.none) {
            await earlier;
            leaveSource();
            return copyThroughGraph(spec, span);
        }
        const parts = await planView(spec.source.node, span.offset, span.length);
        // A read through the nodes may need its range for itself (copy-on-read fills what it reads).
        if (parts === null)
            leaveSource();
        if (spec.compress === true)
            return this.#copyCompressed({ span, parts, earlier });
        if (parts === null)
            return this.#fallBack(span);
        const range = { ...span, parts };
        const spans = dataSpans(range, spec.unit);
        for (const gap of gapsBetween(span, spans)) {
            // Filling goes through a reservation, where the guest's writes are seen.
            const failure = await (spec.fill === undefined
                ? this.zero(gap.offset, gap.length)
                : this.#copySpan(range, gap));
            if (failure !== null)
                return failure;
        }
        for (const data of spans) {
            const failure = await this.#copySpan(range, data);
            if (failure !== null)
                return failure;
        }
        return null;
    }
    /** Reserve, fill, link. */
    async #copySpan(range, span) {
        const target = this.spec.target.node;
        // Filled with what is read anyway: nothing that observers would have to know.
        const changes = this.spec.fill === undefined;
        const leave = target.enterBatch(span.offset, span.length, changes);
        let filled = null;
        try {
            const reserved = target.reserve(span.offset, span.length, !changes);
            const reservation = reserved instanceof Promise ? await reserved : reserved;
            if (reservation !== null)
                filled = await this.#fillReservation(range, reservation);
        }
        catch (error) {
            return { side: 'target', error: toBlockError(error) };
        }
        finally {
            leave();
        }
        if (filled === null)
            return this.#fallBack(span);
        if (filled.failure !== null)
            return filled.failure;
        // A piece may be several clusters of which the guest wrote only some: the rest is due still.
        if (filled.lost)
            return this.#fallBack(span);
        return this.#zeroAll(filled.zeroes);
    }
    async #zeroAll(spans) {
        for (const span of spans) {
            const failure = await this.#writeZeroes(span);
            if (failure !== null)
                return failure;
        }
        return null;
    }
    async #fillReservation(range, reservation) {
        const { zeroGranularity, hostCopies = false } = this.spec;
        const lost = await this.#piecesOfGuest(reservation);
        const table = new FileTable();
        const steps = [];
        const stepOf = [];
        for (const piece of reservation.pieces) {
            if (lost.has(piece)) {
                stepOf.push(LOST);
                continue;
            }
            const isZero = allZero(cutParts(range, piece.offset, piece.length));
            stepOf.push(isZero ? ZERO : steps.length);
            if (isZero)
                continue;
            steps.push(pieceStep(range, piece, { table, zeroGranularity, hostCopies }));
        }
        const results = await this.#runSteps(steps, table, reservation);
        const holes = this.spec.targetIsZero === true;
        const zeroes = [];
        // A hole reads as zeroes only until the target gets a backing file.
        const saysZeroes = !holes && this.spec.fill === undefined;
        let failure = null;
        const outcomes = reservation.pieces.map((piece, index) => {
            const at = must(stepOf[index], 'each piece has its step');
            if (at === LOST)
                return 'dropped';
            const result = at === ZERO ? ZERO_RESULT : must(results[at], 'each step has a result');
            if (result.outcome === 'zero') {
                if (piece.fresh) {
                    return holes ? { zeroRanges: [0, piece.length], holes } : 'zero';
                }
                if (saysZeroes)
                    zeroes.push(piece);
                return 'dropped';
            }
            if (result.outcome !== 'written') {
                failure ??= failureOf(result.failure, piece.offset);
                return 'dropped';
            }
            if (result.zeroRanges.length === 0)
                return 'written';
            // What a lane left out of new space may hold old bytes: it must not be linked as it is.
            if (piece.fresh)
                return { zeroRanges: result.zeroRanges, holes };
            if (saysZeroes)
                pushRanges(zeroes, piece.offset, result.zeroRanges);
            return 'written';
        });
        const linked = reservation.link(outcomes);
        if (linked instanceof Promise)
            await linked;
        return { failure, zeroes, lost: lost.size > 0 };
    }
    /**
     * When filling: pieces whose clusters a guest has written since the range was chosen. Looked
     * for after reserving, so a later write is seen by the compare-and-set of link().
     */
    async #piecesOfGuest(reservation) {
        const lost = new Set();
        if (this.spec.fill === undefined)
            return lost;
        for (const piece of reservation.pieces) {
            const end = piece.offset + piece.length;
            for (let at = piece.offset; at < end;) {
                const asked = this.spec.target.node.blockStatus(at, end - at, false);
                const status = asked instanceof Promise ? await asked : asked;
                if (status.allocated)
                    lost.add(piece);
                at += status.length;
            }
        }
        return lost;
    }
    async #runSteps(steps, table, reservation) {
        if (steps.length === 0)
            return [];
        try {
            return await this.#lanes.run({ task: { steps, slab: null, cancel: this.#cancel }, files: table.files }, this);
        }
        catch (error) {
            reservation.abandon();
            throw error;
        }
    }
    /** The bytes go through the nodes: some driver must see them. */
    async #fallBack(span) {
        const { spec } = this;
        if (spec.fill !== undefined)
            return spec.fill(span.offset, span.length);
        return copyThroughGraph(spec, span);
    }
    async #copyCompressed(copy) {
        const { span } = copy;
        const packs = this.spec.target.node.driverNode.writeDeflated !== undefined;
        if (copy.parts === null || !packs) {
            await copy.earlier;
            return copyThroughGraph(this.spec, span);
        }
        const range = { ...span, parts: copy.parts };
        const { unit } = this.spec;
        const table = new FileTable();
        const steps = [];
        for (let at = span.offset; at < span.offset + span.length; at += unit) {
            steps.push(compressStep(range, at, { unit, table, index: steps.length }));
        }
        const slab = this.#takeSlab(steps.length * unit);
        const results = await this.#lanes.run({ task: { steps, slab, cancel: this.#cancel }, files: table.files }, this);
        await copy.earlier;
        try {
            return await this.#pack({ span, slab, results });
        }
        catch (error) {
            return { side: 'target', error: toBlockError(error) };
        }
        finally {
            this.#freeSlabs.push(slab);
        }
    }
    /** Used again, for shared memory is given back late: not the collector's heap, but the host's. */
    #takeSlab(bytes) {
        const slab = this.#freeSlabs.pop();
        return slab !== undefined && slab.byteLength >= bytes ? slab : new SharedArrayBuffer(bytes);
    }
    /** Writes the clusters of a batch in guest order, compressed where that made them smaller. */
    async #pack(batch) {
        const { unit } = this.spec;
        for (const [index, result] of batch.results.entries()) {
            const offset = batch.span.offset + index * unit;
            const length = Math.min(unit, batch.span.offset + batch.span.length - offset);
            if (result.outcome === 'zero') {
                const failure = await this.zero(offset, length);
                if (failure !== null)
                    return failure;
                continue;
            }
            if (result.outcome !== 'written')
                return failureOf(result.failure, offset);
            const bytes = new Uint8Array(batch.slab, index * unit, result.bytes);
            if (result.deflated)
                await this.#packCluster(offset, length, bytes);
            else
                await this.spec.target.node.write(writeRequest(offset, bytes.subarray(0, length)));
        }
        return null;
    }
    async #packCluster(offset, length, payload) {
        const target = this.spec.target.node;
        const leave = target.enterBatch(offset, length, true);
        try {
            await target.driverNode.writeDeflated?.(offset, payload);
        }
        finally {
            leave();
        }
    }
    /** Counts the batch on every node of the source's view, and keeps freed clusters from reuse. */
    #enterSource({ offset, length }, exits) {
        for (const node of nodesOfView(this.spec.source.node)) {
            exits.push(node.enterBatch(offset, length, false));
            const lease = node.lease();
            exits.push(() => lease.release());
        }
    }
}
/** In place of a step's number: nothing to write, or not ours any more. */
const ZERO = -1;
const LOST = -2;
const ZERO_RESULT = {
    outcome: 'zero',
    bytes: 0,
    zeroRanges: [],
    deflated: false,
    failure: null,
};
/** `pairs`: offset from `start` and length of each range. */
function pushRanges(spans, start, pairs) {
    for (let each = 0; each < pairs.length; each += 2) {
        spans.push({ offset: start + (pairs[each] ?? 0), length: pairs[each + 1] ?? 0 });
    }
}
function compressStep(range, offset, place) {
    const { unit } = place;
    const length = Math.min(unit, range.offset + range.length - offset);
    const parts = laneParts(cutParts(range, offset, length), place.table);
    assert(length > 0, `a cluster at ${offset} lies in the range`);
    return {
        // A compressed cluster is always a whole one; past the end of the image it is zero.
        parts: length < unit ? [...parts, { kind: 'zero', length: unit - length }] : parts,
        length: unit,
        target: { kind: 'slab', offset: place.index * unit },
        zeroGranularity: unit,
        skipZeroes: false,
        deflate: true,
    };
}
/** `offset`: the guest byte that the failed piece begins at. */
function failureOf(failure, offset) {
    if (failure === null) {
        return { side: 'source', error: new BlockError('cancelled', 'Operation canceled') };
    }
    const { side, kind, message, errno } = failure;
    return { side, error: new BlockError(kind, message, { errno, offset }) };
}
