// SPDX-License-Identifier: Apache-2.0
// LUKS files for tests that are not about keys: their password is known.
import type { Driver } from '../../src/block/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import { luksDriver } from '../../src/drivers/formats/luks/index.js';
import { makeLuks } from './luks-images.js';

export const XTS: CipherSpec = {
  cipher: 'aes-256',
  mode: 'xts',
  ivGenerator: 'plain64',
  ivHash: null,
};
export const LUKS_PASSWORD = 'open';

const heads = new Map<CipherSpec, Promise<Uint8Array>>();

/** Header and key material; the payload begins where they end. The same again for the same spec. */
export function luksHead(spec = XTS): Promise<Uint8Array> {
  const made = heads.get(spec) ?? makeHead(spec);
  heads.set(spec, made);
  return made;
}

async function makeHead(spec: CipherSpec): Promise<Uint8Array> {
  return (await makeLuks([LUKS_PASSWORD], { spec, payload: 0 })).bytes;
}

/** A whole file whose payload was never written. */
export async function luksFile(payloadBytes: number, spec = XTS): Promise<Uint8Array> {
  const head = await luksHead(spec);
  const file = new Uint8Array(head.length + payloadBytes);
  file.set(head);
  return file;
}

/** The driver, whose every secret is the password of these files. */
export function luksWithPassword(): Driver<never> {
  const driver: typeof luksDriver = {
    ...luksDriver,
    open: (context, options) =>
      luksDriver.open({ ...context, secret: () => Buffer.from(LUKS_PASSWORD) }, options),
  };
  return driver as unknown as Driver<never>;
}
