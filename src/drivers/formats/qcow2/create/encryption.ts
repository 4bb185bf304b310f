// SPDX-License-Identifier: Apache-2.0
// The encryption of a new image: what is asked for, and the LUKS header in its clusters.
//
// All that can be refused is before the file is touched. The master key is needed for nothing here
// and is wiped as soon as it lies in keyslot 0.

import { BlockError } from '../../../../base/index.js';
import type { CreateContext, Node } from '../../../../block/index.js';
import { writeRequest, zeroRequest } from '../../../../block/index.js';
import { deriveKey } from '../../../../crypto/index.js';
import type { DeriveKey } from '../../../../crypto/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  headerAreaBytes,
  luksIterations,
  luksWish,
} from '../../../../crypto/luks/index.js';
import type { FormattedLuks, LuksWish } from '../../../../crypto/luks/index.js';
import { secretOf } from '../encryption/index.js';
import type { CryptHeaderPlace } from '../header.js';
import type { Qcow2CreateOptions } from '../options.js';

export interface NewEncryption {
  /** Null for the older AES method, which needs nothing in the file. */
  readonly luks: LuksWish | null;
  /** Bytes of the LUKS header with all key material; 0 for AES. */
  readonly headerBytes: number;
}

/** Throws kind `unsupported` or `invalid-option`; null: data stays as it is. */
export function newEncryption({
  encrypt,
}: Pick<Qcow2CreateOptions, 'encrypt'>): NewEncryption | null {
  if (encrypt === undefined) return null;
  if (encrypt.format === 'qcow') return { luks: null, headerBytes: 0 };
  const luks = luksWish(encrypt);
  return { luks, headerBytes: headerAreaBytes(luks.spec) };
}

/** Asks for the secret and looks at the files; null where nothing of it is stored. */
export async function makeCryptHeader(
  context: CreateContext,
  encryption: NewEncryption,
  options: Qcow2CreateOptions,
): Promise<FormattedLuks | null> {
  const password = secretOf(context, options.encrypt?.['key-secret']);
  const { luks } = encryption;
  try {
    if (luks === null) return null;
    for (const place of [options.file, options['data-file']]) {
      if (place !== undefined) await context.foresee?.(place);
    }
    const { host, signal } = context;
    const derive: DeriveKey = (asked) => deriveKey(asked, signal);
    const iterations = await luksIterations(luks, derive, host);
    const made = await formatLuks(
      { ...luks, ...iterations, password, detached: false },
      { derive, fill: (buffer) => host.fillSecret(buffer) },
    );
    made.masterKey.fill(0);
    return made;
  } finally {
    password.fill(0);
  }
}

/** The header of the image does not name the clusters yet. */
export async function writeCryptHeader(
  file: Node,
  { header, material }: FormattedLuks,
  place: CryptHeaderPlace,
): Promise<void> {
  const [slot] = header.keyslots;
  const { offset, length } = place;
  if (slot === undefined || slot.materialOffset + material.length > length) {
    throw new BlockError('invalid-state', 'the LUKS header does not fit its clusters');
  }
  await file.writeZeroes(zeroRequest(offset, length, 0));
  await file.write(writeRequest(offset + slot.materialOffset, material));
  await file.write(writeRequest(offset, encodeLuksHeader(header)));
}
