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
  const match = /^([^-]*)(?:-([^:]*)(?::(.*))?)?$/s.exec(cipherMode);
  const [, mode = '', vector, ivHash] = match ?? [];
  // Without a vector `ecb` alone makes sense, and other programs write it so.
  if (vector === undefined && mode !== 'ecb') {
    throw unsupported(`Unexpected cipher mode string format '${cipherMode}'`);
  }
  if (!isOneOf(CIPHER_MODES, mode)) throw unsupported(`Cipher mode '${mode}' not supported`);
  if (mode === 'xts' && keyBytes % 2 !== 0) {
    throw unsupported('XTS cipher key length should be a multiple of 2');
  }
  const bytes = mode === 'xts' ? keyBytes / 2 : keyBytes;
  const cipher = cipherName === 'aes' ? aesOfKeyBytes(bytes) : null;
  if (cipher === null) {
    const text = `Algorithm '${cipherName}' with key size ${bytes} bytes not supported`;
    throw unsupported(text);
  }
  if (vector !== undefined && !isOneOf(IV_GENERATORS, vector)) {
    throw unsupported(`IV generator '${vector}' not supported`);
  }
  const hash = vector === 'essiv' ? requiredHash(ivHash) : null;
  const spec = { cipher, mode, ivGenerator: vector ?? null, ivHash: hash };
  requireConsistent(spec);
  return spec;
}

/** Only `essiv` has one: what stands behind other vectors is read over by everybody. */
function requiredHash(name: string | undefined): HashName {
  if (name === undefined) throw unsupported('Missing IV generator hash specification');
  return hashOfHeader(name);
}

/** The digest that a LUKS header names. Throws kind `unsupported`. */
export function hashOfHeader(name: string): HashName {
  if (isOneOf(HASH_NAMES, name)) return name;
  throw unsupported(`Hash algorithm '${name}' not supported`);
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

function unsupported(text: string): BlockError {
  return new BlockError('unsupported', text);
}
