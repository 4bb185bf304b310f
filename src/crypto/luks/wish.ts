// SPDX-License-Identifier: Apache-2.0
// What somebody asks of a new LUKS header, with the defaults filled in and checked.

import { BlockError } from '../../base/index.js';
import type { Host } from '../../host/index.js';
import { calibrated, requireHash } from '../derivation/index.js';
import type { DeriveKey } from '../derivation/index.js';
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
import { DIGEST_BYTES } from './layout.js';

const DEFAULT_ITER_TIME_MS = 2000;
const LEAST_ITERATIONS = 1000;
/** The master key's digest may take this part of the time of a keyslot. */
const DIGEST_SHARE = 1 / 8;

export interface LuksWish {
  readonly spec: CipherSpec;
  readonly hash: HashName;
  readonly iterTimeMs: number;
}

/** Throws kind `unsupported` for names without an implementation. */
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
  { iterationsPerMs }: Rated,
): Promise<number> {
  const ms = timeOf(iterTimeMs ?? DEFAULT_ITER_TIME_MS);
  if (ms === 0) return LEAST_ITERATIONS;
  const wish = { hash, length: keyBytesOf(spec), ms, least: LEAST_ITERATIONS };
  return calibrated(wish, derive, iterationsPerMs);
}

/** A host that may have a rate of its own. */
type Rated = Pick<Host, 'iterationsPerMs'>;

export interface LuksIterations {
  readonly slotIterations: number;
  readonly digestIterations: number;
}

/**
 * Iterations of a keyslot and of the master key's digest, measured here and now unless the host
 * says a rate. Throws kind `too-large` for a time that no number of iterations takes.
 */
export async function luksIterations(
  { spec, hash, iterTimeMs }: LuksWish,
  derive: DeriveKey,
  host: Rated,
): Promise<LuksIterations> {
  const slotIterations = await keyslotIterations({ spec, hash, iterTimeMs }, derive, host);
  const ms = timeOf(iterTimeMs) * DIGEST_SHARE;
  const digest = { hash, length: DIGEST_BYTES, ms, least: LEAST_ITERATIONS };
  const digestIterations = await calibrated(digest, derive, host.iterationsPerMs);
  return { slotIterations, digestIterations };
}

/** A negative number is taken for the 64 bits that it has. */
function timeOf(ms: number): number {
  return ms < 0 ? ms + 2 ** 64 : ms;
}
