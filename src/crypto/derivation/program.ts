// SPDX-License-Identifier: Apache-2.0
// The program of process.ts: one derivation from standard input to standard output.
//
// It ends at once when the input does. The work in the pool of threads would hold up a plain exit
// until it is done, so it kills itself.

import { secretBytes } from '../../base/index.js';
import { decodeDerivation } from './message.js';
import { derivePortably } from './portable.js';
import type { PortableDerivation } from './portable.js';

let received: Uint8Array = new Uint8Array(0);
let isRunning = false;

process.stdin.on('data', (chunk: Uint8Array) => {
  const longer = secretBytes(received.length + chunk.length);
  longer.set(received);
  longer.set(chunk, received.length);
  received.fill(0);
  chunk.fill(0);
  received = longer;
  const wish = decodeDerivation(received);
  if (wish === null || isRunning) return;
  isRunning = true;
  void answer(wish);
});
process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL'));

async function answer(wish: PortableDerivation): Promise<void> {
  const key = await derivePortably(wish);
  received.fill(0);
  process.stdout.write(key, () => {
    key.fill(0);
    process.exit(0);
  });
}
