// SPDX-License-Identifier: Apache-2.0
// Ciphers, modes, initial vectors and digests by the names that images and options use.
//
// A LUKS header says `aes` and `xts-plain64` or `cbc-essiv:sha256` beside the length of its key;
// options say `aes-256`, `xts`, `plain64`, `sha256`. Names that are known and not supported are
// told from names that nobody knows.

import { BlockError } from '../base/index.js';

export const CIPHER_NAMES = ['aes-128', 'aes-192', 'aes-256'] as const;
export const CIPHER_MODES = ['ecb', 'cbc', 'xts'] as const;
export const IV_GENERATORS = ['plain', 'plain64', 'essiv'] as const;
export const HASH_NAMES = [
  'md5',
  'sha1',
  'sha224',
  'sha256',
  'sha384',
  'sha512',
  'ripemd160',
] as const;

export type CipherName = (typeof CIPHER_NAMES)[number];
export type CipherMode = (typeof CIPHER_MODES)[number];
export type IvGenerator = (typeof IV_GENERATORS)[number];
export type HashName = (typeof HASH_NAMES)[number];

/** Bytes of one AES key. */
const KEY_BYTES: Readonly<Record<CipherName, number>> = {
  'aes-128': 16,
  'aes-192': 24,
  'aes-256': 32,
};

/** Bytes of a digest. */
export const HASH_BYTES: Readonly<Record<HashName, number>> = {
  md5: 16,
  sha1: 20,
  sha224: 28,
  sha256: 32,
  sha384: 48,
  sha512: 64,
  ripemd160: 20,
};

/** How sectors are encrypted; pure data, without the key. */
export interface CipherSpec {
  readonly cipher: CipherName;
  readonly mode: CipherMode;
  /** Null: the header names none, which only `ecb` may. */
  readonly ivGenerator: IvGenerator | null;
  /** Of `essiv`, else null. */
  readonly ivHash: HashName | null;
}

/** Bytes of the whole key: two of them for `xts`. */
export function keyBytesOf({ cipher, mode }: Pick<CipherSpec, 'cipher' | 'mode'>): number {
  return KEY_BYTES[cipher] * (mode === 'xts' ? 2 : 1);
}

/** The AES cipher with a key of so many bytes, or null. */
export function aesOfKeyBytes(bytes: number): CipherName | null {
  return CIPHER_NAMES.find((name) => KEY_BYTES[name] === bytes) ?? null;
}

/**
 * The spec that a LUKS header names (LUKS on-disk format 1.2.3, "cipher_name", "cipher_mode").
 * Throws kind `unsupported` for ciphers, modes and vectors that are not built in.
 */
export function cipherSpecOf(header: {
  readonly cipherName: string;
  readonly cipherMode: string;
  /** Bytes of the master key. */
  readonly keyBytes: number;
}): CipherSpec {
  const { cipherName, cipherMode, keyBytes } = header;
  const match = /^([a-z0-9]+)(?:-([a-z0-9]+)(?::([a-z0-9]+))?)?$/.exec(cipherMode);
  const [, mode, vector, ivHash] = match ?? [];
  if (mode === undefined) throw unsupported('cipher mode', cipherMode);
  if (cipherName !== 'aes') throw unsupported('cipher', cipherName);
  if (!isOneOf(CIPHER_MODES, mode)) throw unsupported('cipher mode', cipherMode);
  if (vector !== undefined && !isOneOf(IV_GENERATORS, vector)) {
    throw unsupported('IV generator', vector);
  }
  const cipher = aesOfKeyBytes(mode === 'xts' ? keyBytes / 2 : keyBytes);
  if (cipher === null) {
    throw new BlockError(
      'corrupt-image',
      `LUKS header: no cipher ${cipherName}-${mode} has keys of ${keyBytes} bytes (key_bytes)`,
    );
  }
  const spec = { cipher, mode, ivGenerator: vector ?? null, ivHash: hashOf(ivHash) };
  requireConsistent(spec);
  return spec;
}

function hashOf(name: string | undefined): HashName | null {
  if (name === undefined) return null;
  if (!isOneOf(HASH_NAMES, name)) throw unsupported('hash algorithm', name);
  return name;
}

/** Throws where vector, mode and digest do not go together. */
export function requireConsistent({ mode, ivGenerator, ivHash }: CipherSpec): void {
  if (ivGenerator === null && mode !== 'ecb') {
    throw new BlockError('unsupported', `Cipher mode ${mode} needs an IV generator`);
  }
  if ((ivGenerator === 'essiv') !== (ivHash !== null)) {
    const text = ivHash === null ? 'IV generator essiv needs a hash' : 'Only essiv has an IV hash';
    throw new BlockError('unsupported', text);
  }
  // The key of essiv is the digest itself, so some AES must take one of its length.
  if (ivHash !== null && aesOfKeyBytes(HASH_BYTES[ivHash]) === null) {
    const text = `No AES cipher with key size ${HASH_BYTES[ivHash]} available`;
    throw new BlockError('unsupported', text);
  }
}

/** How a LUKS header writes the mode: `xts-plain64`, `cbc-essiv:sha256`, `ecb`. */
export function luksModeOf({ mode, ivGenerator, ivHash }: CipherSpec): string {
  const vector = ivGenerator === null ? '' : `-${ivGenerator}`;
  return `${mode}${vector}${ivHash === null ? '' : `:${ivHash}`}`;
}

export function isOneOf<const T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name);
}

function unsupported(what: string, name: string): BlockError {
  return new BlockError('unsupported', `LUKS header: ${what} '${name}' is not supported`);
}
