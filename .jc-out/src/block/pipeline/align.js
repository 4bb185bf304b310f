// SPDX-License-Identifier: Apache-2.0
// Requests that do not fit the node's alignment: a bounce buffer of whole blocks is read, and for
// writes merged and written back. The caller holds a serialising entry over the widened range
// during a write, so that nothing changes the blocks between reading and writing them.
import { IO_LIMITS, must, sequence, settle } from '../../base/index.js';
export function isAligned(range, alignment) {
    return alignment <= 1 || (range.offset % alignment === 0 && range.length % alignment === 0);
}
/** Bytes of the largest request that may go to a driver: whole blocks, and one at least. */
export function transferLimit({ maxTransfer, requestAlignment }) {
    const most = maxTransfer === 0 ? IO_LIMITS.maxTransfer : maxTransfer;
    return wholeBlocks(Math.min(most, IO_LIMITS.maxTransfer), requestAlignment);
}
/** The most of `length` that is whole blocks, and one block at least. */
export function wholeBlocks(length, alignment) {
    return alignment <= 1 ? length : Math.max(alignment, length - (length % alignment));
}
/** The smallest aligned range around `range`. */
export function widen(range, alignment) {
    const offset = range.offset - (range.offset % alignment);
    const end = Math.ceil((range.offset + range.length) / alignment) * alignment;
    return { offset, length: end - offset };
}
export function padRead(pipeline, request, range) {
    const bounce = alignedBuffer(range.length, pipeline.open().limits.requestAlignment);
    const target = must(request.buffer, 'buffer of a read');
    return settle(readBlocks(pipeline, range.offset, bounce), () => {
        const from = request.offset - range.offset;
        target.set(bounce.subarray(from, from + request.length));
    });
}
export function padWrite(pipeline, request, range) {
    const alignment = pipeline.open().limits.requestAlignment;
    const bounce = alignedBuffer(range.length, alignment);
    const source = must(request.buffer, 'buffer of a write');
    const head = request.offset !== range.offset;
    const tail = (request.offset + request.length) % alignment !== 0;
    const tailAt = range.length - alignment;
    // One block that is partly written at both ends is read once.
    const joined = head && tail && tailAt === 0;
    const first = { offset: range.offset, buffer: bounce.subarray(0, alignment) };
    const last = { offset: range.offset + tailAt, buffer: bounce.subarray(tailAt) };
    const headRead = head
        ? readEdge(pipeline, first, joined ? ['head', 'tail'] : ['head'])
        : undefined;
    return settle(headRead, () => {
        const tailRead = tail && !joined ? readEdge(pipeline, last, ['tail']) : undefined;
        return settle(tailRead, () => {
            bounce.set(source, request.offset - range.offset);
            return pipeline.perform({ ...request, ...range, buffer: bounce });
        });
    });
}
/** A block that is written in part, between the events named after the ends that it is. */
function readEdge(pipeline, { offset, buffer }, ends) {
    const points = (name) => sequence(ends.length, (index) => pipeline.open().debugEvent?.(`pwritev_rmw_${name}${ends[index] ?? ''}`, true));
    const read = settle(points(''), () => readBlocks(pipeline, offset, buffer));
    return settle(read, () => points('after_'));
}
/** Reads whole blocks; a block beyond the end of a growing node is zeroes. */
function readBlocks(pipeline, offset, buffer) {
    if (offset >= pipeline.open().length)
        return undefined;
    return pipeline.perform({ kind: 'read', offset, length: buffer.length, buffer, flags: 0 });
}
/** A zeroed buffer whose address is a multiple of `alignment`, as far as the platform tells. */
function alignedBuffer(length, alignment) {
    // Large array buffers are page-aligned; a small one is cut out of a page-aligned one.
    const page = Math.max(alignment, 4096);
    return new Uint8Array(new ArrayBuffer(Math.ceil(length / page) * page), 0, length);
}
