// SPDX-License-Identifier: Apache-2.0
// The key of an encrypted image, taken out with the secret that the options name.
//
// LUKS (crypt_method 2) keeps a master key in keyslots; with the older AES method (1) the first 16
// bytes of the password are the key of AES-128 in CBC mode, which does not say whether it is right.

import { BlockError, must, secretBytes } from '../../../../base/index.js';
import { passwordOf } from '../../../../block/index.js';
import type { OpenContext } from '../../../../block/index.js';
import { limitedDerive } from '../../../../crypto/index.js';
import type { CipherSpec } from '../../../../crypto/index.js';
import { unlockAny } from '../../../../crypto/luks/index.js';
import type { Qcow2Header } from '../header.js';
import { CryptMethod } from '../layout.js';
import { DataCipher } from '../metadata/index.js';
import type { EncryptionFormat } from '../metadata/index.js';
import type { Qcow2Options } from '../options.js';
import type { CryptHeader } from './area.js';

const AES_KEY_BYTES = 16;
const AES: CipherSpec = { cipher: 'aes-128', mode: 'cbc', ivGenerator: 'plain64', ivHash: null };

/** How the header says that guest data is encrypted; null: it is not. */
export function encryptionOf({ fields }: Qcow2Header): EncryptionFormat | null {
  if (fields.cryptMethod === CryptMethod.none) return null;
  return fields.cryptMethod === CryptMethod.luks ? 'luks' : 'aes';
}

/** Throws kind `invalid-option` where options tell of another format than the image has. */
export function requireFormat(present: EncryptionFormat | null, options: Qcow2Options): void {
  const wanted = options.encrypt?.format;
  if (wanted === undefined || wanted === present) return;
  throw invalid(
    present === null
      ? `No encryption in image header, but options specified format '${wanted}'`
      : `Header reported '${present}' encryption format but options specify '${wanted}'`,
  );
}

/** Whether a key that an image was opened with is that of this one, as far as can be known. */
export function isKeyOf(
  cipher: DataCipher,
  header: Qcow2Header,
  crypt: CryptHeader | null,
): boolean {
  const format = encryptionOf(header);
  if (format === null) return false;
  if (format === 'aes') return cipher.fits({ format });
  return crypt !== null && cipher.fits({ format, volume: crypt.header });
}

/**
 * Null where data is not encrypted. Throws kind `invalid-option` without a secret, `permission`
 * where it opens no keyslot.
 */
export async function unlock(
  context: OpenContext,
  { header, crypt }: { readonly header: Qcow2Header; readonly crypt: CryptHeader | null },
  options: Qcow2Options,
): Promise<DataCipher | null> {
  const format = encryptionOf(header);
  if (format === null) return null;
  const password = secretOf(context, options.encrypt?.['key-secret']);
  try {
    if (format === 'aes') {
      const key = secretBytes(AES_KEY_BYTES);
      key.set(password.subarray(0, AES_KEY_BYTES));
      return new DataCipher({ format }, AES, key);
    }
    const luks = must(crypt, 'the LUKS header of an encrypted image');
    const { encrypt } = options;
    const derive = limitedDerive({
      image: context.child('file').node.filename,
      limitSeconds: encrypt?.format === 'aes' ? undefined : encrypt?.['key-derivation-limit'],
      signal: context.signal,
    });
    const unlocked = await unlockAny(luks, password, derive);
    if (unlocked !== null) {
      const { header: volume } = luks;
      return new DataCipher({ format, volume }, volume.spec, unlocked.masterKey);
    }
  } finally {
    password.fill(0);
  }
  throw new BlockError('permission', 'Invalid password, cannot unlock any keyslot');
}

/** Bytes of the password; the caller wipes them. */
export function secretOf(
  context: Parameters<typeof passwordOf>[0],
  id: string | undefined,
): Uint8Array {
  if (id === undefined) throw keyMissing();
  return passwordOf(context, id);
}

export function keyMissing(): BlockError {
  return invalid("Parameter 'encrypt.key-secret' is required for cipher");
}

function invalid(text: string): BlockError {
  return new BlockError('invalid-option', text);
}
