// SPDX-License-Identifier: Apache-2.0
// Option types of encryption that more than one format has. Pure data.

import { enumeration, int, optional, str, struct, union } from '../schema/index.js';
import type { Infer } from '../schema/index.js';

export const cipherAlgorithm = enumeration('QCryptoCipherAlgorithm', [
  'aes-128',
  'aes-192',
  'aes-256',
  'des',
  '3des',
  'cast5-128',
  'serpent-128',
  'serpent-192',
  'serpent-256',
  'twofish-128',
  'twofish-192',
  'twofish-256',
]);
export const cipherMode = enumeration('QCryptoCipherMode', ['ecb', 'cbc', 'xts', 'ctr']);
export const ivGeneratorAlgorithm = enumeration('QCryptoIVGenAlgorithm', [
  'plain',
  'plain64',
  'essiv',
]);
export const hashAlgorithm = enumeration('QCryptoHashAlgorithm', [
  'md5',
  'sha1',
  'sha224',
  'sha256',
  'sha384',
  'sha512',
  'ripemd160',
]);

/** How a LUKS header is opened, in qcow2 or alone. */
export const LUKS_OPEN_MEMBERS = {
  /** Id of the secret whose data is the password; needed for all but looking at the header. */
  'key-secret': optional(str),
  /** Seconds that unlocking may take as far as can be told before; 60 by default. */
  'key-derivation-limit': optional(int),
} as const;

/** How a new LUKS header is made, in qcow2 or alone. */
export const LUKS_CREATE_MEMBERS = {
  /** Id of the secret that becomes the password of keyslot 0. */
  'key-secret': optional(str),
  'cipher-alg': optional(cipherAlgorithm),
  'cipher-mode': optional(cipherMode),
  'ivgen-alg': optional(ivGeneratorAlgorithm),
  'ivgen-hash-alg': optional(hashAlgorithm),
  'hash-alg': optional(hashAlgorithm),
  /** Milliseconds that trying one password may take; 2000 by default. */
  'iter-time': optional(int),
} as const;

export const luksCreateMembers = struct('QCryptoBlockCreateOptionsLUKS', LUKS_CREATE_MEMBERS);
export type LuksCreateMembers = Infer<typeof luksCreateMembers>;

export const keyslotState = enumeration('QCryptoBlockLUKSKeyslotState', ['active', 'inactive']);

/** What becomes of which keyslots, in qcow2 or alone. */
export const LUKS_AMEND_MEMBERS = {
  state: keyslotState,
  /** Id of the secret that becomes the password of the keyslot; only where one is added. */
  'new-secret': optional(str),
  /** Id of the secret whose password all keyslots have that are erased. */
  'old-secret': optional(str),
  /** 0 to 7; the first free one where none is named and one is added. */
  keyslot: optional(int),
  /** Milliseconds that trying the new password may take; 2000 by default. */
  'iter-time': optional(int),
  /** Id of the secret that opens the image; that which it was opened with by default. */
  secret: optional(str),
} as const;

export const luksAmendMembers = struct('QCryptoBlockAmendOptionsLUKS', LUKS_AMEND_MEMBERS);
export type LuksAmendMembers = Infer<typeof luksAmendMembers>;

/** Of an encrypted image that is not LUKS alone; the legacy method has nothing to amend. */
export const encryptionAmendOptions = union('QCryptoBlockAmendOptions', {
  discriminator: 'format',
  tagName: 'QCryptoBlockFormat',
  branches: { qcow: null, luks: luksAmendMembers },
});
