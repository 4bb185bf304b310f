// SPDX-License-Identifier: Apache-2.0
// Opening a window of a node: its offset and size are checked against what is there.
import { BlockError, MAX_OFFSET } from '../../../base/index.js';
import { RawNode } from './node.js';
const SECTOR_BYTES = 512;
export function openRaw(context, options) {
    try {
        const file = context.child('file');
        const offset = options.offset ?? 0;
        const size = options.size ?? null;
        checkWindow(file.node.length, offset, size);
        return Promise.resolve(new RawNode({ file, offset, size, reopen: openRaw }));
    }
    catch (error) {
        return Promise.reject(error);
    }
}
/** Throws kind `invalid-option` naming the member that does not fit. */
function checkWindow(available, offset, size) {
    if (offset > MAX_OFFSET || (size !== null && offset + size > MAX_OFFSET)) {
        throw new BlockError('invalid-option', 'offset and size of driver \'raw\' are too large');
    }
    if (offset > available) {
        throw new BlockError('invalid-option', `Offset (${offset}) cannot be greater than size of the containing file (${available})`);
    }
    if (size === null)
        return;
    if (offset + size > available) {
        throw new BlockError('invalid-option', `The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the ` +
            ` actual size of the containing file (${available})`);
    }
    if (size % SECTOR_BYTES !== 0) {
        throw new BlockError('invalid-option', 'Specified size is not multiple of 512');
    }
}
