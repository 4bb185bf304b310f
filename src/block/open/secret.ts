// SPDX-License-Identifier: Apache-2.0
// Secrets by their id, as those who open and make images are given them.

import { isUtf8 } from 'node:buffer';

import { BlockError } from '../../base/index.js';

/** Gives a copy of a secret's data, which the caller wipes; throws kind `not-found`. */
export type SecretSource = (id: string) => Uint8Array;

export const noSecrets: SecretSource = (id) => {
  throw new BlockError('not-found', `No secret with id '${id}'`);
};

/**
 * Bytes of the password that key-secret names, which is text without NUL; the caller wipes them.
 * Throws kind `invalid-option`.
 */
export function passwordOf(
  { secret = noSecrets }: { readonly secret?: SecretSource },
  id: string | undefined,
): Uint8Array {
  if (id === undefined) {
    throw new BlockError('invalid-option', "Parameter 'key-secret' is required for cipher");
  }
  const password = secret(id);
  if (isUtf8(password) && !password.includes(0)) return password;
  password.fill(0);
  throw new BlockError('invalid-option', `Data from secret ${id} is not valid UTF-8`);
}
