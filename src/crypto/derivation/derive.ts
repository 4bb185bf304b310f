// SPDX-License-Identifier: Apache-2.0
// Keys from passwords (PBKDF2, RFC 8018 section 5.2), off the event loop: in the addon where it has
// the digest for this processor, else by OpenSSL, in a process of its own where that takes long.
//
// What takes long can be cancelled, and nothing of it outlives this process or holds up its end.
// Only a few run at a time, so that threads of the pool are left for files.

import { CRYPTO_LIMITS, systemClock } from '../../base/index.js';
import { nativeAddon } from '../../host/index.js';
import type { NativeAddon } from '../../host/index.js';
import { expectedMs } from './cost.js';
import { derivePortably } from './portable.js';
import { cancelledDerivation, workOf } from './wish.js';
import type { Derivation } from './wish.js';

/** The end of each derivation that runs. */
const running = new Set<() => void>();
let isWatchingExit = false;
const waiting: (() => void)[] = [];
let active = 0;

/**
 * The caller wipes what it gets. Throws kind `unsupported` for a digest that Node lacks, and
 * `cancelled` soon after the signal.
 */
export async function deriveKey(wish: Derivation, signal?: AbortSignal): Promise<Uint8Array> {
  requireWanted(signal);
  while (active >= CRYPTO_LIMITS.parallelDerivations) {
    await nextEnd(signal);
    requireWanted(signal);
  }
  active += 1;
  try {
    return await derived(wish, signal);
  } finally {
    active -= 1;
    for (const look of waiting.splice(0)) look();
  }
}

/** Resolves when a derivation has ended or the signal comes. */
async function nextEnd(signal?: AbortSignal): Promise<void> {
  let look = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    look = resolve;
  });
  waiting.push(look);
  signal?.addEventListener('abort', look, { once: true });
  await ended;
  signal?.removeEventListener('abort', look);
}

async function derived(wish: Derivation, signal?: AbortSignal): Promise<Uint8Array> {
  const addon = nativeAddon();
  const native = addon === null ? null : derivedNatively(addon, wish, signal);
  if (native !== null) return native;
  if (workOf(wish) > CRYPTO_LIMITS.shortDerivation) {
    const ms = await expectedMs(wish, (probe) => derived(probe));
    requireWanted(signal);
    if (ms > CRYPTO_LIMITS.uncancellableMs) {
      const { deriveInProcess } = await import('./process.js');
      const { key, stop } = deriveInProcess(wish);
      return stoppable(key, stop, signal);
    }
  }
  const { onCost } = wish;
  const wall = systemClock.now();
  const before = process.cpuUsage();
  const key = await derivePortably(wish);
  // Others of this process may have worked meanwhile, other processes may have taken turns.
  const { user, system } = process.cpuUsage(before);
  onCost?.(Math.min(systemClock.now() - wall, (user + system) / 1000));
  if (signal?.aborted !== true) return key;
  key.fill(0);
  throw cancelledDerivation();
}

/** Null where the addon cannot. */
function derivedNatively(
  addon: NativeAddon,
  wish: Derivation,
  signal?: AbortSignal,
): Promise<Uint8Array> | null {
  const { hash, password, salt, iterations, length, onCost } = wish;
  const cancel = new Int32Array(1);
  const cost = new Float64Array(1);
  const native = addon.deriveByDigest(hash, password, salt, iterations, length, cancel, cost);
  if (native === null) return null;
  const whole = native.then((key) => {
    if (key.length !== length) throw cancelledDerivation();
    onCost?.(cost[0] ?? 0);
    return key;
  });
  return stoppable(whole, () => (cancel[0] = 1), signal);
}

async function stoppable<T>(work: Promise<T>, stop: () => void, signal?: AbortSignal): Promise<T> {
  if (!isWatchingExit) {
    isWatchingExit = true;
    process.once('exit', () => {
      for (const end of running) end();
    });
  }
  running.add(stop);
  signal?.addEventListener('abort', stop, { once: true });
  if (signal?.aborted === true) stop();
  try {
    return await work;
  } finally {
    running.delete(stop);
    signal?.removeEventListener('abort', stop);
  }
}

function requireWanted(signal?: AbortSignal): void {
  if (signal?.aborted === true) throw cancelledDerivation();
}
