// SPDX-License-Identifier: Apache-2.0
// The thread of argon2.ts: one derivation, answered with the key and what it cost.
//
// The library computes without pause, so it may not run where others wait; the thread is ended by
// whoever started it.

import { parentPort, workerData } from 'node:worker_threads';

import { systemClock } from '../../base/index.js';
import type { Argon2Answer, Argon2Wish } from './argon2.js';

/** What is used of hash-wasm. */
type Derive = (wish: {
  readonly password: Uint8Array;
  readonly salt: Uint8Array;
  readonly parallelism: number;
  readonly iterations: number;
  /** KiB. */
  readonly memorySize: number;
  readonly hashLength: number;
  readonly outputType: 'binary';
}) => Promise<Uint8Array>;

/** Found when it is needed: all else works without it. */
const LIBRARY: string = 'hash-wasm';
const LEAST = { parallelism: 1, iterations: 1, memorySize: 8, hashLength: 4 } as const;

async function derived(wish: Argon2Wish): Promise<Argon2Answer> {
  const { type, password, salt } = wish;
  const library = (await import(LIBRARY)) as Readonly<Record<Argon2Wish['type'], Derive>>;
  const derive = library[type];
  const outputType = 'binary';
  // The first compiles the code.
  await derive({ ...LEAST, password, salt, outputType });
  const start = systemClock.now();
  const key = await derive({
    password,
    salt,
    parallelism: wish.lanes,
    iterations: wish.passes,
    memorySize: wish.memoryKib,
    hashLength: wish.length,
    outputType,
  });
  password.fill(0);
  return { key, ms: systemClock.now() - start };
}

const answer = await derived(workerData as Argon2Wish);
parentPort?.postMessage(answer);
answer.key.fill(0);
