// SPDX-License-Identifier: Apache-2.0
// Headers of LUKS version 2 made in memory, right or wrong in any place.
import { createHash } from 'node:crypto';

import { STRIPES } from '../../src/crypto/luks/index.js';
import type { LuksArea } from '../../src/crypto/luks/index.js';

export const COPY_BYTES = 16_384;
export const KEYSLOTS_BYTES = 1024 * 1024;

export interface CopyWish {
  readonly text: string;
  readonly sequence?: number;
  readonly headerBytes?: number;
}

/** One copy, with a checksum that holds. */
export function luks2Copy(place: 'primary' | 'secondary', wish: CopyWish): Buffer {
  const { text, sequence = 1, headerBytes = COPY_BYTES } = wish;
  const bytes = Buffer.alloc(headerBytes);
  const isFirst = place === 'primary';
  bytes.set(isFirst ? [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe] : [0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe]);
  bytes.writeUInt16BE(2, 6);
  bytes.writeBigUInt64BE(BigInt(headerBytes), 8);
  bytes.writeBigUInt64BE(BigInt(sequence), 16);
  bytes.write('a label', 24);
  bytes.write('sha256', 72);
  bytes.write('11111111-2222-4333-8444-555555555555', 168);
  bytes.writeBigUInt64BE(isFirst ? 0n : BigInt(headerBytes), 256);
  bytes.write(text, 4096);
  bytes.set(createHash('sha256').update(bytes).digest(), 448);
  return bytes;
}

/** Both copies, and as many bytes behind them as key material takes. */
export function luks2Bytes(primary: CopyWish, secondary: CopyWish = primary): Buffer {
  const copies = [luks2Copy('primary', primary), luks2Copy('secondary', secondary)];
  return Buffer.concat([...copies, Buffer.alloc(KEYSLOTS_BYTES)]);
}

export function areaOf(bytes: Uint8Array): LuksArea {
  return {
    read(offset, length) {
      return Promise.resolve(new Uint8Array(bytes.subarray(offset, offset + length)));
    },
    write: () => Promise.reject(new Error('nothing is written')),
    flush: () => Promise.reject(new Error('nothing is written')),
  };
}

const base64 = (length: number): string => Buffer.alloc(length, 7).toString('base64');

/** A text that is right in copies of so many bytes, to be spoilt. */
export function luks2Text(headerBytes = COPY_BYTES): Record<string, unknown> {
  return {
    keyslots: { '0': keyslot(32_768), '1': keyslot(327_680) },
    tokens: {},
    segments: {
      '0': {
        type: 'crypt',
        offset: '2097152',
        size: 'dynamic',
        iv_tweak: '0',
        encryption: 'aes-xts-plain64',
        sector_size: 4096,
      },
    },
    digests: {
      '0': {
        type: 'pbkdf2',
        keyslots: ['0', '1'],
        segments: ['0'],
        hash: 'sha256',
        iterations: 1000,
        salt: base64(32),
        digest: base64(32),
      },
    },
    config: { json_size: String(headerBytes - 4096), keyslots_size: String(KEYSLOTS_BYTES) },
  };
}

function keyslot(offset: number): Record<string, unknown> {
  const area = { offset, size: 258_048, encryption: 'aes-xts-plain64' };
  return luks2KeyslotText({ ...area, keyBytes: 64, iterations: 1000, salt: base64(32) });
}

/** `offset` and `size` are those of its area, `salt` is in base64. */
export function luks2KeyslotText(wish: {
  readonly offset: number;
  readonly size: number;
  readonly encryption: string;
  readonly keyBytes: number;
  readonly iterations: number;
  readonly salt: string;
}): Record<string, unknown> {
  const { offset, size, encryption, keyBytes, iterations, salt } = wish;
  const place = { offset: String(offset), size: String(size) };
  return {
    type: 'luks2',
    key_size: keyBytes,
    af: { type: 'luks1', stripes: STRIPES, hash: 'sha256' },
    area: { type: 'raw', ...place, encryption, key_size: keyBytes },
    kdf: { type: 'pbkdf2', hash: 'sha256', iterations, salt },
  };
}

/** The text with one member replaced, by its path; undefined takes it away. */
export function spoilt(path: string, value: unknown): string {
  const text = luks2Text();
  const names = path.split('.');
  const last = names.pop() ?? '';
  let at = text;
  for (const name of names) at = at[name] as Record<string, unknown>;
  if (value === undefined) delete at[last];
  else at[last] = value;
  return JSON.stringify(text);
}
