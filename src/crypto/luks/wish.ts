// SPDX-License-Identifier: Apache-2.0
// What somebody asks of a new LUKS header, with the defaults filled in and checked.

import { BlockError } from '../../base/index.js';
import type { Clock } from '../../base/index.js';
import { iterationsFor, iterationsPerMs } from '../calibration.js';
import { requireHash } from '../derivation.js';
import type { CipherSpec, HashName } from '../names.js';
import {
  CIPHER_MODES,
  CIPHER_NAMES,
  HASH_NAMES,
  isOneOf,
  keyBytesOf,
  requireConsistent,
} from '../names.js';
import type { LuksCreateMembers } from '../options.js';
import type { DeriveKey } from './keyslots.js';
import { DIGEST_BYTES } from './layout.js';

const DEFAULT_ITER_TIME_MS = 2000;
/** Beyond that no count of iterations is one any more. */
const MAX_ITER_TIME_MS = 2 ** 32 - 1;
const LEAST_ITERATIONS = 1000;
/** The master key's digest may take this part of the time of a keyslot. */
const DIGEST_SHARE = 1 / 8;

export interface LuksWish {
  readonly spec: CipherSpec;
  readonly hash: HashName;
  readonly iterTimeMs: number;
}

/** Throws kind `unsupported` for names without an implementation, `invalid-option` for a time. */
export function luksWish(members: LuksCreateMembers): LuksWish {
  const cipher = members['cipher-alg'] ?? 'aes-256';
  const mode = members['cipher-mode'] ?? 'xts';
  const ivGenerator = members['ivgen-alg'] ?? 'plain64';
  const hash = members['hash-alg'] ?? 'sha256';
  if (!isOneOf(CIPHER_NAMES, cipher)) throw unsupported(cipher);
  if (!isOneOf(CIPHER_MODES, mode)) throw unsupported(mode);
  const spec: CipherSpec = {
    cipher,
    mode,
    ivGenerator,
    ivHash: ivGenerator === 'essiv' ? supportedHash(members['ivgen-hash-alg'] ?? 'sha256') : null,
  };
  requireConsistent(spec);
  const iterTimeMs = Number(members['iter-time'] ?? DEFAULT_ITER_TIME_MS);
  if (iterTimeMs < 0 || iterTimeMs > MAX_ITER_TIME_MS) {
    const text = `PBKDF iterations too large to scale (iter-time=${iterTimeMs})`;
    throw new BlockError('invalid-option', `${text}: Numerical result out of range`);
  }
  return { spec, hash: supportedHash(hash), iterTimeMs };
}

function supportedHash(name: string): HashName {
  if (!isOneOf(HASH_NAMES, name)) throw unsupported(name);
  requireHash(name);
  return name;
}

function unsupported(name: string): BlockError {
  return new BlockError('unsupported', `Algorithm '${name}' not supported`);
}

/** Iterations of one more keyslot; null: the usual time. Measured, unless the least will do. */
export async function keyslotIterations(
  { spec, hash, iterTimeMs }: Pick<LuksWish, 'spec' | 'hash'> & {
    readonly iterTimeMs: number | null;
  },
  derive: DeriveKey,
  clock: Clock,
): Promise<number> {
  const ms = iterTimeMs ?? DEFAULT_ITER_TIME_MS;
  if (ms < 0) throw new BlockError('invalid-option', 'iter-time must not be negative');
  if (ms === 0) return LEAST_ITERATIONS;
  const perMs = await iterationsPerMs({ hash, length: keyBytesOf(spec) }, derive, clock);
  return iterationsFor(perMs, ms, LEAST_ITERATIONS);
}

/** Iterations of a keyslot and of the master key's digest, measured here and now. */
export async function luksIterations(
  { spec, hash, iterTimeMs }: LuksWish,
  derive: DeriveKey,
  clock: Clock,
): Promise<{ readonly slotIterations: number; readonly digestIterations: number }> {
  const slot = await iterationsPerMs({ hash, length: keyBytesOf(spec) }, derive, clock);
  const digest = await iterationsPerMs({ hash, length: DIGEST_BYTES }, derive, clock);
  return {
    slotIterations: iterationsFor(slot, iterTimeMs, LEAST_ITERATIONS),
    digestIterations: iterationsFor(digest, iterTimeMs * DIGEST_SHARE, LEAST_ITERATIONS),
  };
}
