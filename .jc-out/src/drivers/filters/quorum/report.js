// SPDX-License-Identifier: Apache-2.0
// The events of a quorum: a child that failed or said something else, and no majority at all.
//
// Both count in sectors of 512 bytes, from the one in which the request begins to the one in which
// it ends. A flush has no range and is told as 0, 0.
import { errnoText } from '../../../base/index.js';
const SECTOR_BYTES = 512;
function sectorsOf({ offset, length }) {
    const first = Math.floor(offset / SECTOR_BYTES);
    const end = Math.ceil((offset + length) / SECTOR_BYTES);
    return { 'sector-num': first, 'sectors-count': end - first };
}
/** Without an error the child was outvoted. */
export function reportBad(context, child, range) {
    const { kind, error } = range;
    context.emit?.('QUORUM_REPORT_BAD', {
        type: kind,
        ...(error === null ? {} : { error: errnoText(error.errno) }),
        'node-name': child.name,
        ...sectorsOf(range),
    });
}
export function reportFailure(context, range) {
    context.emit?.('QUORUM_FAILURE', { reference: context.node.name, ...sectorsOf(range) });
}
