// SPDX-License-Identifier: Apache-2.0
// Digests of short messages, made and compared.

import { hash as hashOf } from 'node:crypto';

import type { HashName } from './names.js';

/** A digest at one go, which costs half of what an object for it does. */
export function digestOf(hash: HashName, message: Uint8Array): Buffer {
  return hashOf(hash, message, 'buffer');
}

/**
 * In the time that their length takes, wherever they differ. Node's own comparison comes with all
 * of its cryptography, and to load that would be a good part of unlocking an image.
 */
export function isSameDigest(left: Uint8Array, right: Uint8Array): boolean {
  let different = left.length ^ right.length;
  for (let at = 0; at < left.length; at += 1) different |= (left[at] ?? 0) ^ (right[at] ?? 0);
  return different === 0;
}
