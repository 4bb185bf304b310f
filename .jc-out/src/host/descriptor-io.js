// SPDX-License-Identifier: Apache-2.0
// Blocking reads and writes on a descriptor: the portable file's, and those of a lane's thread on
// a descriptor that another thread opened and holds. The latter makes sure that the descriptor
// stays open and tells its file afterwards (HostFile.hold, noteForeignWrite).
import { readSync, writeSync } from 'node:fs';
/** Bytes read; fewer than asked only at the end of the file. */
export function readDescriptor(descriptor, buffer, offset) {
    let done = 0;
    while (done < buffer.length) {
        const count = readSync(descriptor, buffer, done, buffer.length - done, offset + done);
        if (count === 0)
            break;
        done += count;
    }
    return done;
}
/** Writes all of `buffer`. */
export function writeDescriptor(descriptor, buffer, offset) {
    let done = 0;
    while (done < buffer.length) {
        done += writeSync(descriptor, buffer, done, buffer.length - done, offset + done);
    }
}
