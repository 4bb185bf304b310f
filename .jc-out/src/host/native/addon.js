// SPDX-License-Identifier: Apache-2.0
// Loads the addon, once, and gives its entry points their types.
//
// Numbers returned are results from 0 up, or minus errno. Without the addon (not built, another
// platform, an older build, BLOCKWRIGHT_NATIVE=0) everything works through the portable host.
import { createRequire } from 'node:module';
import { packageFile } from '../package-root.js';
const ENTRY_POINTS = [
    'readNoWait',
    'writeAll',
    'allocateNow',
    'allocateLater',
    'copyLater',
    'fileSize',
    'seekData',
    'seekHole',
    'lockShared',
    'unlock',
    'testLock',
    'zeroPrefix',
];
let loaded;
/** The addon, or null when it is not to be had. */
export function nativeAddon() {
    if (loaded === undefined) {
        loaded = process.env['BLOCKWRIGHT_NATIVE'] === '0' ? null : load();
    }
    return loaded;
}
function load() {
    try {
        const require = createRequire(import.meta.url);
        const addon = require(packageFile('native/build/blockwright.node'));
        const whole = ENTRY_POINTS.every((name) => typeof addon[name] === 'function');
        return whole ? addon : null;
    }
    catch {
        return null;
    }
}
