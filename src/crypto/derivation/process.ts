// SPDX-License-Identifier: Apache-2.0
// A long derivation in a process of its own, since OpenSSL cannot be stopped: what is cancelled is
// killed.
//
// The password goes through a pipe, never through arguments or environment, and the key comes back
// through another. The process ends when its input does, so that it does not outlive this one.

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';

import { BlockError, secretBytes } from '../../base/index.js';
import { packageFile } from '../../host/index.js';
import { encodeDerivation } from './message.js';
import type { PortableDerivation } from './portable.js';
import { cancelledDerivation } from './wish.js';

const PROGRAM = 'dist/crypto/derivation/program.js';

export interface DerivingProcess {
  /** The caller wipes it. Throws kind `cancelled` after stop(). */
  readonly key: Promise<Uint8Array>;
  readonly stop: () => void;
}

export function deriveInProcess(wish: PortableDerivation): DerivingProcess {
  // Where no pipe is to be had, it has no streams and fails soon.
  const child: ChildProcess = spawn(process.execPath, [packageFile(PROGRAM)], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  let isStopped = false;
  const key = new Promise<Uint8Array>((resolve, reject) => {
    const bytes = secretBytes(wish.length);
    let filled = 0;
    const fail = (cause: unknown): void => {
      bytes.fill(0);
      const text = 'The process that derives a key ended without it';
      reject(isStopped ? cancelledDerivation() : new BlockError('io', text, { cause }));
    };
    child.stdout?.on('data', (chunk: Buffer) => {
      const part = chunk.subarray(0, bytes.length - filled);
      bytes.set(part, filled);
      filled += part.length;
      chunk.fill(0);
    });
    child.on('error', fail);
    child.on('close', (status) => {
      if (filled === bytes.length && !isStopped) resolve(bytes);
      else fail(status);
    });
  });
  const { stdin } = child;
  stdin?.on('error', () => undefined);
  if (stdin) {
    const message = encodeDerivation(wish);
    stdin.write(message, () => message.fill(0));
  }
  return {
    key,
    stop() {
      isStopped = true;
      child.kill('SIGKILL');
    },
  };
}
