// SPDX-License-Identifier: Apache-2.0
// LUKS files for tests that are not about keys: one iteration and a password that is known.
import { SeededRandom } from '../../src/base/index.js';
import type { Driver } from '../../src/block/index.js';
import { deriveKey } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import { encodeLuksHeader, formatLuks } from '../../src/crypto/luks/index.js';
import { luksDriver } from '../../src/drivers/formats/luks/index.js';

export const XTS: CipherSpec = {
  cipher: 'aes-256',
  mode: 'xts',
  ivGenerator: 'plain64',
  ivHash: null,
};
export const LUKS_PASSWORD = 'open';
const random = new SeededRandom(11);

const heads = new Map<CipherSpec, Promise<Uint8Array>>();

/** Header and key material; the payload begins where they end. The same again for the same spec. */
export function luksHead(spec = XTS): Promise<Uint8Array> {
  const made = heads.get(spec) ?? makeHead(spec);
  heads.set(spec, made);
  return made;
}

async function makeHead(spec: CipherSpec): Promise<Uint8Array> {
  const { header, material, masterKey } = await formatLuks(
    {
      spec,
      hash: 'sha256',
      password: Buffer.from(LUKS_PASSWORD),
      slotIterations: 1,
      digestIterations: 1,
      detached: false,
    },
    { derive: deriveKey, fill: (buffer) => random.fill(buffer) },
  );
  masterKey.fill(0);
  const head = new Uint8Array(header.payloadOffset);
  head.set(encodeLuksHeader(header));
  head.set(material, header.keyslots[0]?.materialOffset);
  return head;
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
