// SPDX-License-Identifier: Apache-2.0
// What a `secret` object holds: given in place or in a file, as text or base64, and perhaps
// wrapped by another secret (AES-256-CBC with PKCS#7 padding).
//
// Nothing of a secret gets into a message; what was only a step on the way is wiped.

import { createDecipheriv } from 'node:crypto';

import { BlockError } from '../base/index.js';

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
  const bytes = format === 'base64' ? decodeBase64(given) : given;
  if (keyid === undefined) return bytes;
  try {
    return unwrapped(bytes, options, sources.secret(keyid));
  } finally {
    bytes.fill(0);
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

/** Wipes what it decodes. */
function decodeBase64(text: Uint8Array): Uint8Array {
  const letters = Buffer.from(text.buffer, text.byteOffset, text.length).toString('latin1');
  text.fill(0);
  if (!/^[A-Za-z0-9+/=\n]*$/.test(letters)) {
    throw invalid('Base64 data contains invalid characters');
  }
  const decoded = Buffer.from(letters, 'base64');
  const bytes = Uint8Array.from(decoded);
  decoded.fill(0);
  return bytes;
}

function unwrapped(
  wrapped: Uint8Array,
  { iv }: SecretOptions,
  key: Uint8Array,
): Uint8Array {
  try {
    if (key.length !== KEY_BYTES) throw invalid(`Key should be ${KEY_BYTES} bytes in length`);
    if (iv === undefined) throw invalid('IV is required to decrypt secret');
    const vector = decodeBase64(Uint8Array.from(Buffer.from(iv, 'latin1')));
    if (vector.length !== BLOCK_BYTES) {
      throw invalid(`IV should be ${BLOCK_BYTES} bytes in length not ${vector.length}`);
    }
    if (wrapped.length % BLOCK_BYTES !== 0 || wrapped.length === 0) {
      const text = `Length ${wrapped.length} must be a multiple of block size ${BLOCK_BYTES}`;
      throw invalid(text);
    }
    const cipher = createDecipheriv('aes-256-cbc', key, vector).setAutoPadding(false);
    const plain = cipher.update(wrapped);
    cipher.final();
    return withoutPadding(plain);
  } finally {
    key.fill(0);
  }
}

/** As many bytes as the last one says are padding. Wipes what it is given. */
function withoutPadding(plain: Buffer): Uint8Array {
  const padding = plain.at(-1) ?? 0;
  const length = plain.length - padding;
  try {
    if (padding === 0 || padding > BLOCK_BYTES) {
      throw invalid(`Incorrect number of padding bytes (${padding}) found on decrypted data`);
    }
    return Uint8Array.from(plain.subarray(0, length));
  } finally {
    plain.fill(0);
  }
}

/** The data as a password: UTF-8 text, byte by byte. Throws kind `invalid-option`. */
export function requireText(id: string, data: Uint8Array): void {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(data);
  } catch {
    throw invalid(`Data from secret ${id} is not valid UTF-8`);
  }
}

function invalid(text: string): BlockError {
  return new BlockError('invalid-option', text);
}
