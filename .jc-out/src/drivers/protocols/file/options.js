// SPDX-License-Identifier: Apache-2.0
// Options of the file driver: blockdev-add and blockdev-create. Pure data.
import { preallocMode } from '../../../block/options.js';
import { bool, enumeration, int, optional, size, str, struct } from '../../../schema/index.js';
export const onOffAuto = enumeration('OnOffAuto', ['auto', 'on', 'off']);
export const aioOption = enumeration('BlockdevAioOptions', ['threads', 'native', 'io_uring']);
export const fileOptions = struct('BlockdevOptionsFile', {
    filename: str,
    locking: optional(onOffAuto),
    aio: optional(aioOption),
    'aio-max-batch': optional(int),
    'drop-cache': optional(bool),
    'x-check-cache-dropped': optional(bool, { features: ['unstable'] }),
}, 
// With auto-read-only the file is open for writing only while somebody writes.
{ facts: { features: ['dynamic-auto-read-only'] } });
export const fileCreateOptions = struct('BlockdevCreateOptionsFile', {
    filename: str,
    size,
    preallocation: optional(preallocMode),
    nocow: optional(bool),
    'extent-size-hint': optional(size),
});
