// SPDX-License-Identifier: Apache-2.0
// Keys from passwords by Argon2 (RFC 9106), on a thread of its own that a signal ends.
//
// One runs at a time, for each may take a gigabyte. An image says itself how much work it wants:
// what is more than usual is measured first, on this machine, and refused above a limit.

import { Worker } from 'node:worker_threads';

import { BlockError, CRYPTO_LIMITS } from '../../base/index.js';
import { packageFile } from '../../host/index.js';
import type { DerivationLimit } from '../derivation/index.js';

export interface Argon2Wish {
  readonly type: 'argon2i' | 'argon2id';
  readonly password: Uint8Array;
  readonly salt: Uint8Array;
  readonly passes: number;
  readonly memoryKib: number;
  readonly lanes: number;
  /** Bytes of the key. */
  readonly length: number;
}

export type DeriveArgon2 = (wish: Argon2Wish) => Promise<Uint8Array>;

/** What the thread answers with. */
export interface Argon2Answer {
  readonly key: Uint8Array;
  /** Without what it took to begin. */
  readonly ms: number;
}

const PROGRAM = 'dist/crypto/luks2/argon2-worker.js';
/** Blocks of 1 KiB that any machine fills in a second, so that usual images are not measured. */
const SLOWEST_PER_SECOND = 70_000;
const PROBE = { passes: 4, memoryKib: 2048, lanes: 1 } as const;

/** The one that runs now; never rejects. */
let running: Promise<unknown> = Promise.resolve();
/** Blocks in a millisecond, once it was measured. */
let rate: number | null = null;

/**
 * Derives for one unlock. Throws kind `too-large` where it would take longer than the limit,
 * `unsupported` where Argon2 is not installed. The caller wipes the key.
 */
export function limitedArgon2({ image, limitSeconds, signal }: DerivationLimit): DeriveArgon2 {
  const limit = Number(limitSeconds ?? CRYPTO_LIMITS.derivationSeconds);
  let total = 0;
  return async (wish) => {
    total += wish.passes * wish.memoryKib;
    if (total > limit * SLOWEST_PER_SECOND) {
      const seconds = Math.ceil(total / (rate ??= await measuredRate()) / 1000);
      if (seconds > limit) {
        throw new BlockError(
          'too-large',
          `Unlocking '${image}' would take about ${seconds} s with ${wish.passes} passes of ` +
            `Argon2 over ${wish.memoryKib} KiB, more than the ${limit} s of 'key-derivation-limit'`,
        );
      }
    }
    return (await oneAtATime(wish, signal)).key;
  };
}

async function measuredRate(): Promise<number> {
  const password = new Uint8Array(16);
  const probe = { ...PROBE, type: 'argon2id', password, salt: password, length: 32 } as const;
  const { ms } = await oneAtATime(probe);
  return (PROBE.passes * PROBE.memoryKib) / Math.max(ms, 1);
}

/** The signal ends also what waits for its turn. */
function oneAtATime(wish: Argon2Wish, signal?: AbortSignal): Promise<Argon2Answer> {
  const own = running.then(() => inThread(wish, signal));
  running = own.catch(() => undefined);
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(cancelledDerivation());
    if (signal?.aborted === true) stop();
    signal?.addEventListener('abort', stop, { once: true });
    own.then(resolve, reject).finally(() => signal?.removeEventListener('abort', stop));
  });
}

function inThread(wish: Argon2Wish, signal?: AbortSignal): Promise<Argon2Answer> {
  return new Promise((resolve, reject) => {
    const cancelled = (): void => reject(cancelledDerivation());
    if (signal?.aborted === true) return cancelled();
    // Shared, so that no message has a copy.
    const password = new Uint8Array(new SharedArrayBuffer(wish.password.length));
    password.set(wish.password);
    const worker = new Worker(packageFile(PROGRAM), { workerData: { ...wish, password } });
    let isStopped = false;
    const stop = (): void => {
      isStopped = true;
      cancelled();
      void worker.terminate();
    };
    signal?.addEventListener('abort', stop, { once: true });
    worker.on('message', (answer: Argon2Answer) => {
      if (isStopped) answer.key.fill(0);
      else resolve(answer);
    });
    worker.on('error', (cause) => reject(notThere(cause)));
    worker.on('exit', () => {
      signal?.removeEventListener('abort', stop);
      password.fill(0);
      reject(new BlockError('io', 'The thread that derives a key ended without it'));
    });
  });
}

function cancelledDerivation(): BlockError {
  return new BlockError('cancelled', 'The derivation of a key was cancelled');
}

function notThere(cause: Error): BlockError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') {
    const text = `The thread that derives a key failed: ${cause.message}`;
    return new BlockError('io', text, { cause });
  }
  const text = 'Keyslots with Argon2 need the package hash-wasm, which is not installed';
  return new BlockError('unsupported', text, { cause });
}
