// SPDX-License-Identifier: Apache-2.0
// LUKS images as bytes, made in no time: one iteration, and the smallest key material.

import { createHash } from 'node:crypto';

import { SeededRandom } from '../../src/base/index.js';
import { deriveKey } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  headerAreaBytes,
  KeyslotEditor,
  materialBytes,
  unlockSlot,
} from '../../src/crypto/luks/index.js';
import type { LuksArea, LuksHeader } from '../../src/crypto/luks/index.js';

export const QUICK_SPEC: CipherSpec = {
  cipher: 'aes-128',
  mode: 'cbc',
  ivGenerator: 'plain64',
  ivHash: null,
};

const random = new SeededRandom(6);
export const quickTools = {
  derive: deriveKey,
  fill: (buffer: Uint8Array): void => random.fill(buffer),
};

/** Bytes in memory as an area. */
export class MemoryArea implements LuksArea {
  constructor(readonly bytes: Uint8Array) {}

  read(offset: number, length: number): Promise<Uint8Array> {
    // A Buffer's slice() would be no copy, and key material is wiped by whoever reads it.
    return Promise.resolve(new Uint8Array(this.bytes.subarray(offset, offset + length)));
  }

  write(offset: number, bytes: Uint8Array): Promise<void> {
    this.bytes.set(bytes, offset);
    return Promise.resolve();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }
}

export interface MadeLuks {
  readonly bytes: Uint8Array;
  readonly masterKey: Uint8Array;
}

export const passwordBytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));

/** An image whose keyslots have these passwords; undefined ones are free. */
export async function makeLuks(
  passwords: readonly (string | undefined)[],
  { spec = QUICK_SPEC, payload = 65_536 }: { spec?: CipherSpec; payload?: number } = {},
): Promise<MadeLuks> {
  const first = passwordBytes(passwords[0] ?? '');
  const iterations = { slotIterations: 1, digestIterations: 1 };
  const made = await formatLuks(
    { spec, hash: 'sha256', password: first, ...iterations, detached: false },
    quickTools,
  );
  const area = new MemoryArea(new Uint8Array(headerAreaBytes(spec) + payload));
  area.bytes.set(encodeLuksHeader(made.header));
  area.bytes.set(made.material, made.header.keyslots[0]?.materialOffset);
  const editor = new KeyslotEditor(area, made.header, quickTools);
  const { masterKey } = made;
  for (const [slot, text] of passwords.entries()) {
    if (slot === 0 || text === undefined) continue;
    await editor.add(slot, { masterKey, password: passwordBytes(text), iterations: 1 });
  }
  if (passwords[0] === undefined) await editor.erase(0);
  return { bytes: area.bytes, masterKey };
}

/** By keyslot and key material: trying passwords takes long, and images are much alike. */
const known = new Map<string, string>();

/** What each keyslot is good for: the first of these passwords that opens it. */
export async function slotPasswords(
  bytes: Uint8Array,
  header: LuksHeader,
  passwords: readonly string[],
): Promise<string[]> {
  const area = new MemoryArea(bytes);
  const found: string[] = [];
  for (const keyslot of header.keyslots) {
    if (!keyslot.active) {
      found.push('erased');
      continue;
    }
    const { salt, iterations, materialOffset } = keyslot;
    const material = bytes.subarray(materialOffset, materialOffset + materialBytes(header.spec));
    const key = createHash('sha1')
      .update(JSON.stringify([passwords, iterations, header.uuid]))
      .update(salt)
      .update(material)
      .digest('hex');
    let good = known.get(key) ?? null;
    for (const text of good === null ? passwords : []) {
      const place = { area, header, keyslot };
      const opened = await unlockSlot(place, passwordBytes(text), deriveKey);
      if (opened === null) continue;
      good = text;
      break;
    }
    found.push(good ?? 'broken');
    known.set(key, good ?? 'broken');
  }
  return found;
}

const CLUSTER = 65_536;
const CRYPT_HEADER = 0x0537be77;

/** What lies in an image that inQcow2() made. */
export const luksOfQcow2 = (bytes: Uint8Array): Uint8Array => bytes.subarray(4 * CLUSTER);

/** An empty qcow2 image of 1 MiB, encrypted with this header and its key material. */
export function inQcow2(luks: Uint8Array): Uint8Array {
  const clusters = Math.ceil(luks.length / CLUSTER);
  const bytes = new Uint8Array((4 + clusters) * CLUSTER);
  const view = new DataView(bytes.buffer);
  const words: readonly number[] = [
    0x514649fb, 3, 0, 0, 0, 16, 0, 2 ** 20, 2, 1, 0, 3 * CLUSTER, 0, CLUSTER, 1, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 4, 104, CRYPT_HEADER, 16, 0, 4 * CLUSTER, 0, luks.length,
  ];
  for (const [index, word] of words.entries()) view.setUint32(4 * index, word);
  view.setUint32(CLUSTER + 4, 2 * CLUSTER);
  for (let each = 0; each < 4 + clusters; each += 1) view.setUint16(2 * CLUSTER + 2 * each, 1);
  bytes.set(luks, 4 * CLUSTER);
  return bytes;
}
