// SPDX-License-Identifier: Apache-2.0
// Files and named pipes as byte streams, for character devices.
//
// A pipe is opened for both directions, so that opening never waits for the other side and losing
// that side is no end of the stream.
import { constants, createReadStream, createWriteStream, fstatSync, openSync } from 'node:fs';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { BlockError, errnoText, kindOfErrno } from '../base/index.js';
const { O_RDWR, O_WRONLY, O_RDONLY, O_CREAT, O_TRUNC, O_APPEND, O_NONBLOCK } = constants;
/** Creates or empties the file, or appends to it. Throws naming the path. */
export function openCharOutput(path, append) {
    const descriptor = open(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC));
    return createWriteStream(path, { fd: descriptor });
}
export function openCharInput(path) {
    return createReadStream(path, { fd: open(path, O_RDONLY) });
}
/** The pipes `path.in` and `path.out` where both are there, else `path` in both directions. */
export function openCharPipe(path) {
    // A descriptor for both directions that were read, too, would hear what it says itself.
    const input = tryPipe(`${path}.in`, 'readable');
    const output = input === null ? null : tryPipe(`${path}.out`, 'writable');
    if (input !== null && output !== null)
        return { input, output };
    input?.destroy();
    return { input: pipeStream(path, 'readable'), output: pipeStream(path, 'writable') };
}
function tryPipe(path, direction) {
    try {
        return pipeStream(path, direction);
    }
    catch (error) {
        if (error instanceof BlockError && error.errno === 'ENOENT')
            return null;
        throw error;
    }
}
function pipeStream(path, direction) {
    const descriptor = open(path, O_RDWR | O_NONBLOCK);
    if (!fstatSync(descriptor).isFIFO()) {
        closeSync(descriptor);
        throw new BlockError('unsupported', `Could not open '${path}': not a pipe`, { path });
    }
    const readable = direction === 'readable';
    return new Socket({ fd: descriptor, readable, writable: !readable });
}
function open(path, flags) {
    try {
        return openSync(path, flags, 0o666);
    }
    catch (error) {
        const errno = error.code ?? 'EIO';
        const text = `Could not open '${path}': ${errnoText(errno)}`;
        throw new BlockError(kindOfErrno(errno), text, { path, errno, cause: error });
    }
}
