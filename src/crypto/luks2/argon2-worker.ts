// SPDX-License-Identifier: Apache-2.0
// The thread of argon2.ts: one derivation, answered with the key and what it cost.
//
// The library computes without pause, so it may not run where others wait; the thread is ended by
// whoever started it.

import { parentPort, workerData } from 'node:worker_threads';

import { argon2i, argon2id } from 'hash-wasm';

import { systemClock } from '../../base/index.js';
import type { Argon2Answer, Argon2Wish } from './argon2.js';

const LEAST = { parallelism: 1, iterations: 1, memorySize: 8, hashLength: 4 } as const;

async function derived(wish: Argon2Wish): Promise<Argon2Answer> {
  const { type, password, salt } = wish;
  const derive = type === 'argon2i' ? argon2i : argon2id;
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

parentPort?.postMessage(await derived(workerData as Argon2Wish));
