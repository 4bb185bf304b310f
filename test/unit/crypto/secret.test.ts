// SPDX-License-Identifier: Apache-2.0
// What a secret is made of: base64 as the reference reads it, refusals in its order, and nothing
// left of what was only a step on the way.
import { createCipheriv } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { loadSecret } from '../../../src/crypto/index.js';
import type { SecretOptions } from '../../../src/crypto/index.js';

const KEY = Buffer.from('01234567890123456789012345678901');
const VECTOR = Buffer.alloc(16, 7);
const iv = VECTOR.toString('base64');

const refused = (id: string): never => {
  throw new Error(`No secret with id '${id}'`);
};
const load = (options: SecretOptions, key: Uint8Array | null = null): Buffer =>
  Buffer.from(
    loadSecret(options, {
      readFile: refused,
      secret: key === null ? refused : () => Uint8Array.from(key),
    }),
  );
const base64 = (data: string): string => load({ data, format: 'base64' }).toString('latin1');

/** Whole blocks, wrapped. */
function wrapped(plain: Buffer): string {
  const cipher = createCipheriv('aes-256-cbc', KEY, VECTOR).setAutoPadding(false);
  return Buffer.concat([cipher.update(plain), cipher.final()]).toString('base64');
}

describe('base64 of a secret', () => {
  it.each([
    ['QUI=', 'AB'],
    ['QUJD\nREVG\n', 'ABCDEF'],
    ['Q\nU\nI=', 'AB'],
    ['/+8=', '\xff\xef'],
    ['', ''],
    // A rest that is no group of four is left out.
    ['QUI', ''],
    ['QUJDREV', 'ABC'],
    // Padding counts in the group that it is in, and is no end.
    ['QUI=QUI=', 'ABAB'],
    ['QQ==QQ==', 'AA'],
    ['====', '\0'],
    ['Q=JD', '@\x02C'],
  ])('%j is %j', (text, plain) => {
    expect(base64(text)).toBe(plain);
  });

  it.each(['QU I=', 'QUI-', 'QUI=\r\n', 'ŁUI=', '\0'])('%j is refused', (text) => {
    expect(() => base64(text)).toThrow('Base64 data contains invalid characters');
  });

  it('is read from bytes of any value as Node reads it', () => {
    const bytes = Buffer.from(Array.from({ length: 1024 }, (_, index) => (index * 7) % 256));
    expect(load({ data: bytes.toString('base64'), format: 'base64' }).equals(bytes)).toBe(true);
  });
});

describe('a wrapped secret', () => {
  const options = { format: 'base64', keyid: 'k', iv } as const;

  it('tells what is wrong with key and vector before it looks at the data', () => {
    const data = '!!';
    const wrong = (more: SecretOptions, key: Uint8Array | null, text: string): void =>
      expect(() => load({ data, format: 'base64', keyid: 'k', ...more }, key)).toThrow(text);
    wrong({ iv: 'AA==' }, null, "No secret with id 'k'");
    wrong({}, KEY.subarray(1), 'Key should be 32 bytes in length');
    wrong({}, KEY, 'IV is required to decrypt secret');
    wrong({ iv: 'ŁŁŁŁ' }, KEY, 'Base64 data contains invalid characters');
    wrong({ iv: 'QUI=' }, KEY, 'IV should be 16 bytes in length not 2');
    wrong({ iv }, KEY, 'Base64 data contains invalid characters');
    expect(() => load({ ...options, data: 'QUI=' }, KEY)).toThrow('Length 2 must be a multiple');
  });

  it('ends before its padding, of which there may be none', () => {
    const text = 'fourteen bytes';
    const two = wrapped(Buffer.from(`${text}\x02\x02`));
    expect(load({ ...options, data: two }, KEY).toString()).toBe(text);
    const none = wrapped(Buffer.from(`${text}!\0`));
    expect(load({ ...options, data: none }, KEY).toString()).toBe(`${text}!\0`);
    const many = wrapped(Buffer.alloc(32, 17));
    expect(() => load({ ...options, data: many }, KEY)).toThrow('Incorrect number of padding');
  });

  it.each([
    ['is made', wrapped(Buffer.alloc(16, 16))],
    ['is refused', '!!'],
    ['has no whole blocks', 'QUI='],
  ])('leaves nothing of its file and of its key when it %s', (_, text) => {
    const file = Buffer.from(text);
    const key = Uint8Array.from(KEY);
    const sources = { readFile: () => file, secret: () => key };
    try {
      loadSecret({ ...options, file: 'f' }, sources);
    } catch {
      // What is left is looked at.
    }
    expect([...file, ...key].every((byte) => byte === 0)).toBe(true);
  });
});
