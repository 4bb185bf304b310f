// SPDX-License-Identifier: Apache-2.0
// What a derivation is asked for, and how much work that is.

import { getHashes } from 'node:crypto';

import { BlockError } from '../../base/index.js';
import type { HashName } from '../names.js';
import { HASH_BYTES } from '../names.js';

export interface Derivation {
  readonly hash: HashName;
  readonly password: Uint8Array;
  readonly salt: Uint8Array;
  /** 1 to 2^31 − 1. */
  readonly iterations: number;
  /** Bytes of the key. */
  readonly length: number;
  /**
   * What of an image says how many iterations there are, for whoever limits them; absent where
   * our user chose them.
   */
  readonly origin?: string;
  /** Told the milliseconds that a processor worked, once the key is there. */
  readonly onCost?: (ms: number) => void;
}

/** What the cost of one iteration depends on. */
export type DerivationKind = Pick<Derivation, 'hash' | 'length'>;

/** How keys are made of passwords; whoever gives it sets limits and can cancel. */
export type DeriveKey = (wish: Derivation) => Promise<Uint8Array>;

/** Digests of digests that the key is made of, in pairs. */
export function workOf({ hash, iterations, length }: Derivation): number {
  return iterations * Math.ceil(length / HASH_BYTES[hash]);
}

/** Throws kind `unsupported` where this Node was built without the digest. */
export function requireHash(hash: HashName): void {
  if (getHashes().includes(hash)) return;
  throw new BlockError('unsupported', `Hash algorithm '${hash}' is not supported by this Node`);
}

export function cancelledDerivation(): BlockError {
  return new BlockError('cancelled', 'The derivation of a key was cancelled');
}
