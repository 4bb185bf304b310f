// SPDX-License-Identifier: Apache-2.0
// Every cipher, mode, vector and digest that LUKS images are written with, and which of them the
// other programs know.

import type { CipherSpec, HashName } from '../../src/crypto/index.js';

const CIPHERS = ['aes-128', 'aes-192', 'aes-256'] as const;
const MODES: readonly Omit<CipherSpec, 'cipher'>[] = [
  { mode: 'xts', ivGenerator: 'plain64', ivHash: null },
  { mode: 'xts', ivGenerator: 'plain', ivHash: null },
  { mode: 'xts', ivGenerator: 'essiv', ivHash: 'sha256' },
  { mode: 'cbc', ivGenerator: 'plain64', ivHash: null },
  { mode: 'cbc', ivGenerator: 'plain', ivHash: null },
  { mode: 'cbc', ivGenerator: 'essiv', ivHash: 'sha256' },
  { mode: 'ecb', ivGenerator: 'plain64', ivHash: null },
];
const HASHES: readonly HashName[] = ['sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'];

export interface LuksKind {
  readonly spec: CipherSpec;
  readonly hash: HashName;
}

export const LUKS_KINDS: readonly LuksKind[] = CIPHERS.flatMap((cipher) =>
  MODES.flatMap((mode) => HASHES.map((hash) => ({ spec: { cipher, ...mode }, hash }))),
);

export const USUAL_KIND: LuksKind = {
  spec: { cipher: 'aes-256', mode: 'xts', ivGenerator: 'plain64', ivHash: null },
  hash: 'sha256',
};

/** As cryptsetup names it. */
export function modeOf({ mode, ivGenerator, ivHash }: CipherSpec): string {
  if (mode === 'ecb') return 'aes-ecb';
  return `aes-${mode}-${ivGenerator}${ivHash === null ? '' : `:${ivHash}`}`;
}

export const nameOf = ({ spec, hash }: LuksKind): string =>
  `${spec.cipher} ${modeOf(spec)} ${hash}`;

/** The reference ends by an assertion on the other two. */
export const isKnownToImg = ({ spec: { cipher, mode } }: LuksKind): boolean =>
  mode === 'xts' || cipher !== 'aes-192';

/** Without a kernel to help it has no XTS of that width. */
export const isKnownToCryptsetup = ({ spec: { cipher, mode } }: LuksKind): boolean =>
  cipher !== 'aes-192' || mode !== 'xts';
