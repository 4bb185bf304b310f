// SPDX-License-Identifier: Apache-2.0
// The bytes in which a derivation is handed to a process: five numbers (digest, iterations, bytes
// of the key, of the salt, of the password; 32 bits, little endian), the salt, the password.

import { secretBytes } from '../../base/index.js';
import { HASH_NAMES } from '../names.js';
import type { PortableDerivation } from './portable.js';

const HEAD_BYTES = 20;

/** The caller wipes it. */
export function encodeDerivation(wish: PortableDerivation): Uint8Array {
  const { hash, iterations, length, salt, password } = wish;
  const message = secretBytes(HEAD_BYTES + salt.length + password.length);
  const view = new DataView(message.buffer);
  const numbers = [HASH_NAMES.indexOf(hash), iterations, length, salt.length, password.length];
  for (const [index, number] of numbers.entries()) view.setUint32(index * 4, number, true);
  message.set(salt, HEAD_BYTES);
  message.set(password, HEAD_BYTES + salt.length);
  return message;
}

/** Null as long as bytes are missing. Salt and password are parts of what is given. */
export function decodeDerivation(bytes: Uint8Array): PortableDerivation | null {
  if (bytes.length < HEAD_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const [digest = 0, iterations = 0, length = 0, saltBytes = 0, passwordBytes = 0] = [
    0, 4, 8, 12, 16,
  ].map((at) => view.getUint32(at, true));
  const hash = HASH_NAMES[digest];
  const end = HEAD_BYTES + saltBytes + passwordBytes;
  if (hash === undefined || bytes.length < end) return null;
  const salt = bytes.subarray(HEAD_BYTES, HEAD_BYTES + saltBytes);
  return { hash, iterations, length, salt, password: bytes.subarray(end - passwordBytes, end) };
}
