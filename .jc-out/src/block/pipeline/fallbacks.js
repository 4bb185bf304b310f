// SPDX-License-Identifier: Apache-2.0
// What happens when a driver does not do an operation itself: the one place where it is handed to
// the child or emulated, as `supports` says. A native answer of kind `unsupported` falls back too.
import { AssertionFailure, BlockError, must, sequence, settle, } from '../../base/index.js';
import { RequestFlag } from '../request.js';
import { isAligned, transferLimit, wholeBlocks, widen } from './align.js';
/** Bytes of one write when zeroes are written out, unless one block is more. */
const ZERO_BUFFER_BYTES = 1024 * 1024;
const zeroBuffer = new Uint8Array(ZERO_BUFFER_BYTES);
/** The node that operations are passed to: the filtered child, else the primary one. */
export function passTarget(pipeline) {
    const target = pipeline.node.filtered ?? pipeline.node.primary;
    return must(target, `node '${pipeline.node.name}' has a child to pass requests to`);
}
function unsupported(pipeline, operation) {
    return new BlockError('unsupported', `Driver '${pipeline.driver.name}' of node '${pipeline.node.name}' ` +
        `does not support ${operation}`, { node: pipeline.node.name, operation });
}
/** A driver that declares an operation native has it. */
function missing(pipeline, operation) {
    return new AssertionFailure(`driver '${pipeline.driver.name}' has a native ${operation}`);
}
function isUnsupported(error) {
    return error instanceof BlockError && error.kind === 'unsupported';
}
export function performRead(pipeline, request) {
    if (pipeline.driver.supports.read === 'pass')
        return passTarget(pipeline).read(request);
    const driverNode = pipeline.driverNode;
    if (driverNode?.read === undefined)
        throw missing(pipeline, 'read');
    return driverNode.read(request);
}
export function performWrite(pipeline, request) {
    const { write, compressedWrite } = pipeline.driver.supports;
    if ((request.flags & RequestFlag.compressed) !== 0) {
        if (compressedWrite === 'pass')
            return passTarget(pipeline).write(request);
        if (compressedWrite !== 'native')
            throw unsupported(pipeline, 'compressed writes');
    }
    if (write === 'native') {
        const driverNode = pipeline.driverNode;
        if (driverNode?.write === undefined)
            throw missing(pipeline, 'write');
        return driverNode.write(request);
    }
    if (write === 'pass')
        return passTarget(pipeline).write(request);
    throw unsupported(pipeline, 'writing');
}
export function performZeroes(pipeline, request) {
    const support = pipeline.driver.supports.writeZeroes;
    if (support === 'pass')
        return passTarget(pipeline).writeZeroes(request);
    if (support === 'none')
        throw unsupported(pipeline, 'writing zeroes');
    if (support === 'emulate')
        return writeOutZeroes(pipeline, request);
    const { limits } = pipeline.open();
    const pieces = splitByUnit(request, limits.optimalZeroes, mostAtOnce(limits, 'maxZeroes'));
    return sequence(pieces.length, (index) => nativeZeroes(pipeline, must(pieces[index], 'piece of a zero request')));
}
function nativeZeroes(pipeline, request) {
    const driverNode = pipeline.open();
    if (!isAligned(request, driverNode.limits.requestAlignment)) {
        return writeOutZeroes(pipeline, request);
    }
    const recover = (error) => {
        if (!isUnsupported(error))
            throw error;
        return writeOutZeroes(pipeline, request);
    };
    let result;
    try {
        if (driverNode.writeZeroes === undefined)
            throw missing(pipeline, 'writeZeroes');
        result = driverNode.writeZeroes(request);
    }
    catch (error) {
        return recover(error);
    }
    return result instanceof Promise ? result.catch(recover) : undefined;
}
function writeOutZeroes(pipeline, request) {
    if ((request.flags & RequestFlag.noFallback) !== 0) {
        throw unsupported(pipeline, 'writing zeroes without data');
    }
    const flags = request.flags & RequestFlag.unchanged;
    const { limits } = pipeline.open();
    const alignment = limits.requestAlignment;
    const chunk = wholeBlocks(Math.min(ZERO_BUFFER_BYTES, transferLimit(limits)), alignment);
    // Chunks are counted from a block's begin, so that only the two ends do not fit the alignment.
    const base = widen(request, Math.max(1, alignment)).offset;
    const end = request.offset + request.length;
    return sequence(Math.ceil((end - base) / chunk), (index) => {
        const offset = Math.max(request.offset, base + index * chunk);
        const length = Math.min(end, base + (index + 1) * chunk) - offset;
        const piece = {
            kind: 'write',
            offset,
            length,
            buffer: zeroesOf(length),
            flags,
        };
        if (isAligned(piece, alignment))
            return performWrite(pipeline, piece);
        return zeroUnaligned(pipeline, piece, alignment);
    });
}
/** Not to be written to. */
function zeroesOf(length) {
    return length <= ZERO_BUFFER_BYTES ? zeroBuffer.subarray(0, length) : new Uint8Array(length);
}
/** Reads, merges and writes the blocks at the ends; the tracked range must be serialising. */
function zeroUnaligned(pipeline, piece, alignment) {
    const range = widen(piece, alignment);
    const bounce = new Uint8Array(range.length);
    const read = { kind: 'read', ...range, buffer: bounce, flags: 0 };
    return settle(performRead(pipeline, read), () => {
        const from = piece.offset - range.offset;
        bounce.fill(0, from, from + piece.length);
        return performWrite(pipeline, { ...piece, ...range, buffer: bounce });
    });
}
/**
 * Head up to the first multiple of `unit`, whole units, and the rest, none larger than `most`
 * (0 = no limit); empty parts left out.
 */
function splitByUnit(request, unit, most) {
    const parts = splitAtUnits(request, unit);
    return most === 0 ? parts : parts.flatMap((part) => chop(part, most));
}
/** Whole blocks, whatever a node below says; 0 = no limit. */
function mostAtOnce(limits, name) {
    const most = limits[name] ?? 0;
    return most === 0 ? 0 : wholeBlocks(most, limits.requestAlignment);
}
function chop(request, most) {
    return Array.from({ length: Math.ceil(request.length / most) }, (_, index) => ({
        ...request,
        offset: request.offset + index * most,
        length: Math.min(most, request.length - index * most),
    }));
}
function splitAtUnits(request, unit) {
    if (unit <= 1)
        return [request];
    const end = request.offset + request.length;
    const first = Math.min(end, Math.ceil(request.offset / unit) * unit);
    const last = Math.max(first, end - (end % unit));
    return [request.offset, first, last]
        .map((offset, index, starts) => ({
        ...request,
        offset,
        length: (starts[index + 1] ?? end) - offset,
    }))
        .filter((piece) => piece.length > 0);
}
/** A discard is a hint: parts that do not fit the alignment are left out. */
export function performDiscard(pipeline, request) {
    const support = pipeline.driver.supports.discard;
    if (support === 'pass')
        return passTarget(pipeline).discard(request);
    if (support !== 'native')
        return undefined;
    const driverNode = pipeline.open();
    const alignment = Math.max(1, driverNode.limits.requestAlignment);
    const offset = Math.ceil(request.offset / alignment) * alignment;
    const end = request.offset + request.length;
    const length = end - (end % alignment) - offset;
    if (length <= 0)
        return undefined;
    const most = mostAtOnce(driverNode.limits, 'maxDiscard');
    const whole = { ...request, offset, length };
    if (most === 0)
        return nativeDiscard(pipeline, whole);
    const pieces = splitByUnit(whole, driverNode.limits.optimalDiscard, most);
    return sequence(pieces.length, (index) => nativeDiscard(pipeline, must(pieces[index], 'piece of a discard')));
}
function nativeDiscard(pipeline, request) {
    const driverNode = pipeline.open();
    const forgive = (error) => {
        if (!isUnsupported(error))
            throw error;
    };
    let result;
    try {
        if (driverNode.discard === undefined)
            throw missing(pipeline, 'discard');
        result = driverNode.discard(request);
    }
    catch (error) {
        return forgive(error);
    }
    return result instanceof Promise ? result.catch(forgive) : undefined;
}
export function performFlush(pipeline) {
    const support = pipeline.driver.supports.flush;
    if (support === 'pass')
        return passTarget(pipeline).flush();
    if (support !== 'native')
        return undefined;
    const driverNode = pipeline.open();
    if (driverNode.flush === undefined)
        throw missing(pipeline, 'flush');
    return driverNode.flush();
}
/** Status of this layer as the driver tells it, holes below not yet looked at. */
export function layerStatus(pipeline, range, exact) {
    const support = pipeline.driver.supports.blockStatus;
    const { offset, length } = range;
    if (support === 'pass')
        return passTarget(pipeline).blockStatus(offset, length, exact);
    if (support !== 'native') {
        return { length, allocated: true, data: true, zero: false, compressed: false };
    }
    const driverNode = pipeline.open();
    if (driverNode.blockStatus === undefined)
        throw missing(pipeline, 'blockStatus');
    return driverNode.blockStatus(offset, length, exact);
}
export function performTruncate(pipeline, size, options) {
    const support = pipeline.driver.supports.truncate;
    if (support === 'pass')
        return passTarget(pipeline).truncate(size, options);
    if (support !== 'native') {
        const text = 'Image format driver does not support resize';
        throw new BlockError('unsupported', text, { node: pipeline.node.name, operation: 'resize' });
    }
    const driverNode = pipeline.open();
    if (driverNode.truncate === undefined)
        throw missing(pipeline, 'truncate');
    return driverNode.truncate(size, options);
}
export function planExtents(pipeline, offset, length) {
    const support = pipeline.driver.supports.planExtents;
    if (support === 'pass')
        return passTarget(pipeline).planExtents(offset, length);
    if (support !== 'native')
        return null;
    return pipeline.open().planExtents?.(offset, length) ?? null;
}
const NO_LEASE = { release: () => undefined };
export function takeLease(pipeline) {
    const own = pipeline.open().lease?.();
    if (own !== undefined)
        return own;
    return pipeline.driver.supports.planExtents === 'pass' ? passTarget(pipeline).lease() : NO_LEASE;
}
export function reserve(pipeline, offset, length) {
    const support = pipeline.driver.supports.reserve;
    if (support === 'pass')
        return passTarget(pipeline).reserve(offset, length);
    if (support !== 'native')
        return null;
    return pipeline.open().reserve?.(offset, length) ?? null;
}
