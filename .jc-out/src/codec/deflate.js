// SPDX-License-Identifier: Apache-2.0
// Raw deflate as qcow2 stores it: a window of 12 bits on both sides, one cluster at a time.
//
// Readers inflate with a 4 KiB window, so a larger window on our side would make images that they
// cannot read. Output is capped: a stream that gives more than the cluster is corrupt, whatever
// size it claims. Input may be followed by bytes that belong to something else.
import { BlockError } from '../base/index.js';
/** Loaded at the first compressed cluster: most images have none. */
function zlib() {
    return process.getBuiltinModule('node:zlib');
}
const WINDOW_BITS = 12;
const MEMORY_LEVEL = 9;
const DEFAULT_LEVEL = 6;
/**
 * The compressed form of `input`, or null when it takes more than `maxLength` bytes
 * (1 to input.length − 1 to insist on a gain).
 */
export function deflateCluster(input, maxLength) {
    const output = zlib().deflateRawSync(input, {
        windowBits: WINDOW_BITS,
        memLevel: MEMORY_LEVEL,
        level: DEFAULT_LEVEL,
        chunkSize: Math.max(64, input.length),
    });
    return output.length <= maxLength ? output : null;
}
/**
 * The first `outputLength` bytes that `input` inflates to. Throws kind `corrupt-image` when the
 * stream is damaged, ends early, or gives another amount of bytes.
 */
export function inflateCluster(input, outputLength) {
    const { constants, inflateRawSync } = zlib();
    let output;
    try {
        output = inflateRawSync(input, {
            windowBits: WINDOW_BITS,
            maxOutputLength: outputLength,
            chunkSize: Math.max(64, outputLength),
            finishFlush: constants.Z_SYNC_FLUSH,
        });
    }
    catch (error) {
        throw damaged(error instanceof Error ? error.message : String(error), error);
    }
    if (output.length !== outputLength) {
        throw damaged(`it gives ${output.length} of ${outputLength} bytes`);
    }
    return output;
}
function damaged(reason, cause) {
    return new BlockError('corrupt-image', `Compressed cluster is damaged: ${reason}`, { cause });
}
