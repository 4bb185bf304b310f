// SPDX-License-Identifier: Apache-2.0
// Which host this process runs on.
import { freshSeed, SeededRandom, systemClock } from '../base/index.js';
import { nativeAddon } from './native/addon.js';
import { NativeHost } from './native/native-host.js';
import { NodeHost } from './node/node-host.js';
/** The native host when the addon loads, else the portable one. */
export function openDefaultHost(options = {}) {
    return openNativeHost(options) ?? openNodeHost(options);
}
/** Null without the addon. */
export function openNativeHost(options = {}) {
    const addon = nativeAddon();
    return addon === null ? null : new NativeHost({ addon, ...resolved(options) });
}
export function openNodeHost(options = {}) {
    return new NodeHost(resolved(options));
}
function resolved(options) {
    return {
        clock: options.clock ?? systemClock,
        random: options.random ?? new SeededRandom(freshSeed()),
        warn: options.warn ?? ((line) => void process.stderr.write(`blockwright: warning: ${line}\n`)),
    };
}
