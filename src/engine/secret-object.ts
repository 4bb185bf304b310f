// SPDX-License-Identifier: Apache-2.0
// A secret as an object: its data is handed to drivers as copies, and told to nobody else.
//
// The options that held it are not kept. What can be asked for are the names beside the data; the
// data itself is refused where the reference would print it.

import { BlockError, CRYPTO_LIMITS, secretCopy } from '../base/index.js';
import type { SecretOptions } from '../crypto/index.js';
import type { Host } from '../host/index.js';
import type { ManagedObject, ObjectProperty } from './objects.js';

export type SecretObjectOptions = SecretOptions & {
  readonly 'qom-type': 'secret';
  readonly id: string;
  /** Part of the command, and never accepted. */
  readonly loaded?: boolean;
};

export interface SecretObject extends ManagedObject {
  /** A copy; the caller wipes it. */
  data(): Uint8Array;
  wipe(): void;
}

export async function makeSecret(
  options: SecretObjectOptions,
  { host, secret }: { readonly host: Host; readonly secret: (id: string) => Uint8Array },
): Promise<SecretObject> {
  if (options.loaded !== undefined) {
    throw new BlockError('invalid-option', "Property 'secret.loaded' is not writable");
  }
  const { loadSecret } = await import('../crypto/index.js');
  const { data: given, file } = options;
  const isRead = file !== undefined && given === undefined;
  const read = isRead ? await host.readWhole(file, CRYPTO_LIMITS.secretFileBytes) : null;
  const data = loadSecret(options, {
    secret(id) {
      if (id !== options.id) return secret(id);
      throw new BlockError('not-found', `Secret with id '${id}' has no data`);
    },
    readFile: () => read ?? new Uint8Array(0),
  });
  return {
    type: 'secret',
    properties: propertiesOf(options),
    inUse: false,
    data: () => secretCopy(data),
    wipe: () => void data.fill(0),
  };
}

function propertiesOf(options: SecretObjectOptions): ReadonlyMap<string, ObjectProperty> {
  const plain = (type: string, value: unknown): ObjectProperty => ({
    type,
    get: () => value ?? '',
    set: () => {
      throw new BlockError('invalid-state', 'Property cannot be set after initialization');
    },
  });
  const hidden: ObjectProperty = {
    type: 'string',
    get: () => {
      throw new BlockError('access-denied', 'The data of a secret is not shown');
    },
  };
  return new Map([
    ['iv', plain('string', options.iv)],
    ['keyid', plain('string', options.keyid)],
    ['loaded', { type: 'bool', get: () => true }],
    ['format', plain('QCryptoSecretFormat', options.format ?? 'raw')],
    ['file', plain('string', options.file)],
    ['data', hidden],
  ]);
}
