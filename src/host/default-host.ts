// SPDX-License-Identifier: Apache-2.0
// Which host this process runs on.

import { type Clock, freshSeed, type Random, SeededRandom, systemClock } from '../base/index.js';
import type { Host } from './host.js';
import { nativeAddon } from './native/addon.js';
import { NativeHost } from './native/native-host.js';
import { NodeHost } from './node/node-host.js';

export interface HostOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  /** Takes warnings, one line each; standard error unless given. */
  readonly warn?: (line: string) => void;
}

/** The native host when the addon loads, else the portable one. */
export function openDefaultHost(options: HostOptions = {}): Host {
  return openNativeHost(options) ?? openNodeHost(options);
}

/** Null without the addon. */
export function openNativeHost(options: HostOptions = {}): Host | null {
  const addon = nativeAddon();
  return addon === null ? null : new NativeHost({ addon, ...resolved(options) });
}

export function openNodeHost(options: HostOptions = {}): Host {
  return new NodeHost(resolved(options));
}

function resolved(options: HostOptions): Required<HostOptions> {
  return {
    clock: options.clock ?? systemClock,
    random: options.random ?? new SeededRandom(freshSeed()),
    warn: options.warn ?? ((line) => void process.stderr.write(`blockwright: warning: ${line}\n`)),
  };
}
