// SPDX-License-Identifier: Apache-2.0
// Drivers `file` and `host_device`: the bytes of a regular file or of a block device of the host,
// locked by permission bytes.
import { defineDriver } from '../../../block/index.js';
import { createFile } from './create.js';
import { openFile, openHostDevice } from './open.js';
const common = {
    kind: 'protocol',
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'native',
        discard: 'native',
        flush: 'native',
        blockStatus: 'native',
        truncate: 'native',
        planExtents: 'native',
        reserve: 'native',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    children: {},
    reopenOptions: [],
};
export const fileDriver = defineDriver({
    ...common,
    name: 'file',
    open: openFile,
    create: createFile,
});
export const hostDeviceDriver = defineDriver({
    ...common,
    name: 'host_device',
    open: openHostDevice,
});
