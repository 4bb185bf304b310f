// SPDX-License-Identifier: Apache-2.0
// Keys from passwords (PBKDF2, RFC 8018 section 5.2) and digests, off the event loop.

import { createHash, getHashes, pbkdf2 } from 'node:crypto';

import { BlockError } from '../base/index.js';
import { nativeAddon } from '../host/index.js';
import type { HashName } from './names.js';

export interface Derivation {
  readonly hash: HashName;
  readonly password: Uint8Array;
  readonly salt: Uint8Array;
  /** 1 to 2^31 − 1. */
  readonly iterations: number;
  /** Bytes of the key. */
  readonly length: number;
}

const NEVER = new Int32Array(1);

/** Names of the digests of WebCrypto; the others go to Node itself. */
const WEB_NAMES: Readonly<Partial<Record<HashName, string>>> = {
  sha1: 'SHA-1',
  sha256: 'SHA-256',
  sha384: 'SHA-384',
  sha512: 'SHA-512',
};

/**
 * The caller wipes what it gets. With the addon a `cancel` whose first number is set ends it with
 * kind `cancelled`. Throws kind `unsupported` for a digest that Node lacks.
 */
export async function deriveKey(
  wish: Derivation,
  cancel: Int32Array = NEVER,
): Promise<Uint8Array> {
  const { hash, password, salt, iterations, length } = wish;
  const addon = hash === 'sha256' ? nativeAddon() : null;
  const native = addon?.deriveLater(password, salt, iterations, length, cancel) ?? null;
  if (native !== null) {
    const key = await native;
    if (key.length === length) return key;
    throw new BlockError('cancelled', 'The derivation of a key was cancelled');
  }
  requireHash(hash);
  const name = WEB_NAMES[hash];
  if (name === undefined) return derivedByNode(wish);
  const { Crypto } = await import('@peculiar/webcrypto');
  const { subtle } = new Crypto();
  const key = await subtle.importKey('raw', password, 'PBKDF2', false, ['deriveBits']);
  const how = { name: 'PBKDF2', salt, iterations, hash: name };
  return new Uint8Array(await subtle.deriveBits(how, key, length * 8));
}

function derivedByNode({ hash, password, salt, iterations, length }: Derivation) {
  return new Promise<Uint8Array>((resolve, reject) => {
    pbkdf2(password, salt, iterations, length, hash, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

export function digestOf(hash: HashName, ...parts: readonly Uint8Array[]): Buffer {
  const digest = createHash(hash);
  for (const part of parts) digest.update(part);
  return digest.digest();
}

/** Throws kind `unsupported` where this Node was built without the digest. */
export function requireHash(hash: HashName): void {
  if (getHashes().includes(hash)) return;
  throw new BlockError('unsupported', `Hash algorithm '${hash}' is not supported by this Node`);
}
