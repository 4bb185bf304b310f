// SPDX-License-Identifier: Apache-2.0
// One request on a node. The owner of the buffer is the request until it completes; a request
// always finishes and is never cancelled.
/** Bits of Request.flags. */
export const RequestFlag = {
    none: 0,
    /** Durable before completion, as if followed by a flush of this range. */
    fua: 1 << 0,
    /** Zeroes may be made by deallocating. */
    mayUnmap: 1 << 1,
    /** Zeroes only if the node can do it without writing data; otherwise kind `unsupported`. */
    noFallback: 1 << 2,
    /** Write whole compressed clusters. */
    compressed: 1 << 3,
    /** The write does not change what the node reads as (copy-on-read, stream). */
    unchanged: 1 << 4,
    /** Wait for every overlapping request, and make later ones wait. */
    serialising: 1 << 5,
    /** Fail with kind `busy` instead of waiting for a serialising request. */
    noWait: 1 << 6,
};
export function readRequest(offset, buffer, flags = 0) {
    return { kind: 'read', offset, length: buffer.length, buffer, flags };
}
export function writeRequest(offset, buffer, flags = 0) {
    return { kind: 'write', offset, length: buffer.length, buffer, flags };
}
export function zeroRequest(offset, length, flags = 0) {
    return { kind: 'write-zeroes', offset, length, buffer: null, flags };
}
export function discardRequest(offset, length, flags = 0) {
    return { kind: 'discard', offset, length, buffer: null, flags };
}
/** The part of a request before `end`; null when there is none. */
export function cutRequest(request, end) {
    const length = Math.min(request.length, end - request.offset);
    if (length === request.length)
        return request;
    if (length <= 0)
        return null;
    return { ...request, length, buffer: request.buffer?.subarray(0, length) ?? null };
}
