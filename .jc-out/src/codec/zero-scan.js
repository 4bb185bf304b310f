// SPDX-License-Identifier: Apache-2.0
// Is this buffer all zeroes? Compared with a zero page, which is as fast as a native scan.
const PAGE = 65_536;
const ZEROES = Buffer.alloc(PAGE);
/** Looked at first, so that data is told from zeroes without a call. */
const HEAD = 16;
export function isZero(buffer) {
    const length = buffer.length;
    const head = Math.min(HEAD, length);
    for (let index = 0; index < head; index += 1)
        if (buffer[index] !== 0)
            return false;
    for (let offset = head; offset < length; offset += PAGE) {
        const end = Math.min(offset + PAGE, length);
        if (Buffer.compare(buffer.subarray(offset, end), zeroes(end - offset)) !== 0)
            return false;
    }
    return true;
}
function zeroes(length) {
    return length === PAGE ? ZEROES : ZEROES.subarray(0, length);
}
