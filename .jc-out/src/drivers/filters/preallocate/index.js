// SPDX-License-Identifier: Apache-2.0
// The filter `preallocate`: a file that writes grow is grown further at once.
//
// For file systems on which growing a file costs much more than writing to it. The options are
// checked here; node.ts does the rest.
import { BlockError } from '../../../base/index.js';
import { ChildRole, defineDriver, looseNumber } from '../../../block/index.js';
import { PreallocateNode } from './node.js';
const SECTOR_BYTES = 512;
const DEFAULT_ALIGN = 1024 * 1024;
const DEFAULT_SIZE = 128 * 1024 * 1024;
export const preallocate = defineDriver({
    name: 'preallocate',
    kind: 'filter',
    children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
    reopenOptions: [],
    changeableOptions: ['prealloc-align', 'prealloc-size'],
    supports: {
        read: 'pass',
        write: 'native',
        writeZeroes: 'pass',
        discard: 'pass',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'native',
        planExtents: 'pass',
        reserve: 'native',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    open: (context, options) => Promise.resolve(openNode(context, options)),
});
function openNode(context, options) {
    return new PreallocateNode({
        context,
        file: context.child('file'),
        preallocation: preallocationOf(context, options),
        reopen: (next, given) => Promise.resolve(openNode(next, given)),
    });
}
function preallocationOf(context, options) {
    const align = bytesOf('prealloc-align', options['prealloc-align'], DEFAULT_ALIGN);
    const size = bytesOf('prealloc-size', options['prealloc-size'], DEFAULT_SIZE);
    const { requestAlignment } = context.child('file').node.limits;
    const problem = align % SECTOR_BYTES !== 0
        ? String(SECTOR_BYTES)
        : align % requestAlignment !== 0
            ? `underlying node request alignment (${requestAlignment})`
            : null;
    if (problem !== null) {
        throw new BlockError('invalid-option', `prealloc-align parameter of preallocate filter is not aligned to ${problem}`, { node: context.node.name });
    }
    return { align: Math.max(align, SECTOR_BYTES), size };
}
function bytesOf(name, value, otherwise) {
    const bytes = looseNumber(name, value, otherwise);
    if (bytes >= 0)
        return bytes;
    throw new BlockError('invalid-option', `Parameter '${name}' expects a non-negative number below 2^64`);
}
