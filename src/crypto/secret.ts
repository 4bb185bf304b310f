// SPDX-License-Identifier: Apache-2.0
// What a `secret` object holds: given in place or in a file, as text or base64, and perhaps
// wrapped by another secret (AES-256-CBC with PKCS#7 padding).
//
// Nothing of a secret gets into a message; what was only a step on the way is wiped.

import { createDecipheriv } from 'node:crypto';

import { BlockError, secretBytes, secretCopy } from '../base/index.js';

export interface SecretOptions {
  readonly data?: string;
  /** Path of a file that holds the data. */
  readonly file?: string;
  readonly format?: 'raw' | 'base64';
  /** Id of the secret that unwraps this one; 32 bytes long. */
  readonly keyid?: string;
  /** Initial vector of the wrapping, 16 bytes in base64. */
  readonly iv?: string;
}

export interface SecretSources {
  /** Throws a BlockError that names the file. */
  readFile(path: string): Uint8Array;
  /** A copy of another secret's data. Throws kind `not-found`. */
  secret(id: string): Uint8Array;
}

const KEY_BYTES = 32;
const BLOCK_BYTES = 16;

/** The bytes of the secret; the caller wipes them. Throws kind `invalid-option`. */
export function loadSecret(options: SecretOptions, sources: SecretSources): Uint8Array {
  const { format = 'raw', keyid } = options;
  const given = givenBytes(options, sources);
  const decoded = (): Uint8Array => (format === 'base64' ? decodeBase64(given) : secretCopy(given));
  try {
    return keyid === undefined ? decoded() : unwrapped(decoded, options, sources.secret(keyid));
  } finally {
    given.fill(0);
  }
}

function givenBytes({ data, file }: SecretOptions, sources: SecretSources): Uint8Array {
  if (data !== undefined && file !== undefined) {
    throw invalid("'file' and 'data' are mutually exclusive");
  }
  if (data !== undefined) return new TextEncoder().encode(data);
  if (file === undefined) throw invalid("Either 'file' or 'data' must be provided");
  return sources.readFile(file);
}

const LETTERS = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const PAD = 0x3d;
const LINE_END = 0x0a;
/** Six bits of each letter; -1: it is none. */
const VALUES = new Int8Array(256).fill(-1);
for (const [value, letter] of LETTERS.entries()) VALUES[letter] = value;
VALUES[PAD] = 0;

/**
 * Never a string, which nobody could wipe. As the reference reads it: whole groups of four letters,
 * padding in each of them, a rest left out.
 */
function decodeBase64(text: Uint8Array): Uint8Array {
  const decoded = secretBytes(Math.floor(text.length / 4) * 3);
  let length = 0;
  let bits = 0;
  let letters = 0;
  let count = 3;
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at] ?? PAD;
    if (letter === LINE_END) continue;
    const value = VALUES[letter] ?? -1;
    if (value < 0) {
      decoded.fill(0);
      throw invalid('Base64 data contains invalid characters');
    }
    if (letter === PAD && letters >= 2) count -= 1;
    bits = (bits << 6) | value;
    letters += 1;
    if (letters < 4) continue;
    decoded[length] = bits >>> 16;
    decoded[length + 1] = bits >>> 8;
    decoded[length + 2] = bits;
    length += count;
    bits = 0;
    letters = 0;
    count = 3;
  }
  const bytes = secretCopy(decoded.subarray(0, length));
  decoded.fill(0);
  return bytes;
}

/** What is wrong with key and vector is told before anything of the data is. Wipes the key. */
function unwrapped(
  decoded: () => Uint8Array,
  { iv }: SecretOptions,
  key: Uint8Array,
): Uint8Array {
  try {
    if (key.length !== KEY_BYTES) throw invalid(`Key should be ${KEY_BYTES} bytes in length`);
    if (iv === undefined) throw invalid('IV is required to decrypt secret');
    const vector = decodeBase64(new TextEncoder().encode(iv));
    if (vector.length !== BLOCK_BYTES) {
      throw invalid(`IV should be ${BLOCK_BYTES} bytes in length not ${vector.length}`);
    }
    const wrapped = decoded();
    if (wrapped.length % BLOCK_BYTES !== 0 || wrapped.length === 0) {
      const text = `Length ${wrapped.length} must be a multiple of block size ${BLOCK_BYTES}`;
      wrapped.fill(0);
      throw invalid(text);
    }
    const cipher = createDecipheriv('aes-256-cbc', key, vector).setAutoPadding(false);
    const plain = cipher.update(wrapped);
    cipher.final();
    wrapped.fill(0);
    return withoutPadding(plain);
  } finally {
    key.fill(0);
  }
}

/** As many bytes as the last one says are padding, which may be none. Wipes what it is given. */
function withoutPadding(plain: Buffer): Uint8Array {
  const padding = plain.at(-1) ?? 0;
  try {
    if (padding > BLOCK_BYTES) {
      throw invalid(`Incorrect number of padding bytes (${padding}) found on decrypted data`);
    }
    return secretCopy(plain.subarray(0, plain.length - padding));
  } finally {
    plain.fill(0);
  }
}

function invalid(text: string): BlockError {
  return new BlockError('invalid-option', text);
}
