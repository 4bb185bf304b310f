// SPDX-License-Identifier: Apache-2.0
// PBKDF2 (RFC 8018, section 5.2) by OpenSSL, on a thread of Node's pool: through WebCrypto for the
// digests that it has, else through Node itself. It cannot be stopped.
//
// WebCrypto keeps a copy of the password in its key, which nobody else reaches; it goes with it.

import { pbkdf2 } from 'node:crypto';

import type { HashName } from '../names.js';
import { requireHash } from './wish.js';
import type { Derivation } from './wish.js';

export type PortableDerivation = Omit<Derivation, 'origin' | 'onCost'>;

/** Names of the digests of WebCrypto. */
const WEB_NAMES: Readonly<Partial<Record<HashName, string>>> = {
  sha1: 'SHA-1',
  sha256: 'SHA-256',
  sha384: 'SHA-384',
  sha512: 'SHA-512',
};

/** The caller wipes what it gets. Throws kind `unsupported` for a digest that Node lacks. */
export async function derivePortably(wish: PortableDerivation): Promise<Uint8Array> {
  const { hash, password, salt, iterations, length } = wish;
  requireHash(hash);
  const name = WEB_NAMES[hash];
  if (name === undefined) return derivedByNode(wish);
  const { Crypto } = await import('@peculiar/webcrypto');
  const { subtle } = new Crypto();
  const key = await subtle.importKey('raw', password, 'PBKDF2', false, ['deriveBits']);
  const how = { name: 'PBKDF2', salt, iterations, hash: name };
  return new Uint8Array(await subtle.deriveBits(how, key, length * 8));
}

function derivedByNode(wish: PortableDerivation): Promise<Uint8Array> {
  const { hash, password, salt, iterations, length } = wish;
  return new Promise((resolve, reject) => {
    pbkdf2(password, salt, iterations, length, hash, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
