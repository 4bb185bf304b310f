// SPDX-License-Identifier: Apache-2.0
// Driver `raw`: the bytes of another node as they are, or a window of them.
import { Permission } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import { openRaw } from './open.js';
const SECTOR_BYTES = 512;
export const rawDriver = defineDriver({
    name: 'raw',
    kind: 'format',
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'native',
        discard: 'native',
        flush: 'pass',
        blockStatus: 'native',
        truncate: 'native',
        planExtents: 'native',
        reserve: 'native',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    children: {
        file: { role: ChildRole.data | ChildRole.primary, required: true, permissions: 'filter' },
    },
    reopenOptions: ['offset', 'size'],
    strongOptions: ['offset', 'size'],
    openingPermissions({ offset, size }, { taken, shared }) {
        const windowed = size !== undefined || (offset ?? 0) !== 0;
        return { taken, shared: windowed ? shared & ~Permission.resize : shared };
    },
    open: openRaw,
    measure(options, source) {
        const size = source?.length ?? Number(options['size']);
        const bytes = Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES;
        return Promise.resolve({ required: bytes, fullyAllocated: bytes });
    },
});
