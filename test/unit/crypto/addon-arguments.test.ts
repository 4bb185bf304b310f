// SPDX-License-Identifier: Apache-2.0
// What the addon is given is looked at before a byte is touched: keys, sectors, stripes and numbers
// that do not fit are a TypeError, also in buffers that were taken away.
import { pbkdf2Sync } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { describe, expect, it } from 'vitest';
import { nativeAddon } from '../../../src/host/index.js';
import type { NativeAddon } from '../../../src/host/index.js';

const addon = nativeAddon() as NativeAddon;
const NONE = new Uint8Array(0);
const bytes = (length: number): Uint8Array => new Uint8Array(length);

/** Its buffer belongs to somebody else now. */
function detached(length: number): Uint8Array {
  const buffer = new ArrayBuffer(length);
  const view = new Uint8Array(buffer);
  structuredClone(buffer, { transfer: [buffer] });
  return view;
}

const ECB = 0;
const CBC = 1;
const XTS = 2;
const SHORT_COUNTS = 32;

describe.skipIf(nativeAddon() === null)('of the addon', () => {
  it.each<[string, number, Uint8Array, Uint8Array, number, number, number]>([
    ['no key', XTS, NONE, NONE, 512, 0, 512],
    ['one key for two', XTS, bytes(16), NONE, 512, 0, 512],
    ['half a block more of a key', XTS, bytes(40), NONE, 512, 0, 512],
    ['a key and a byte', CBC, bytes(33), NONE, 512, 0, 512],
    ['a key that was taken away', XTS, detached(64), NONE, 512, 0, 512],
    ['a long key', CBC, bytes(64), NONE, 512, 0, 512],
    ['a key of vectors that no AES has', CBC, bytes(32), bytes(20), 512, 0, 512],
    ['half a sector', XTS, bytes(64), NONE, 768, 0, 512],
    ['no whole block', ECB, bytes(16), NONE, 24, 0, 24],
    ['sectors of no bytes', XTS, bytes(64), NONE, 512, 0, 0],
    ['sectors of less than none', XTS, bytes(64), NONE, 512, 0, -512],
    ['sectors longer than memory', XTS, bytes(64), NONE, 512, 0, 2 ** 53],
    ['a vector before the first', XTS, bytes(64), NONE, 512, -1, 512],
    ['a mode that is none', 3, bytes(32), NONE, 512, 0, 512],
    ['vectors that count more than a sector', XTS + SHORT_COUNTS, bytes(64), NONE, 512, 0, 256],
  ])('sectors are not encrypted with %s', (_, way, key, vectorKey, length, vector, sector) => {
    const data = bytes(length).fill(7);
    expect(() => addon.cryptRange(way, key, vectorKey, data, vector, sector)).toThrow(TypeError);
    expect(data.every((byte) => byte === 7)).toBe(true);
  });

  it('nothing is done with data that was taken away', () => {
    expect(addon.cryptRange(XTS, bytes(64), NONE, detached(512), 0, 512)).toBeLessThanOrEqual(0);
  });

  it('sectors are the same wherever in a buffer they lie', () => {
    const aligned = bytes(1024).map((_, at) => at);
    if (addon.cryptRange(XTS, bytes(64), NONE, bytes(0), 0, 512) !== 0) return;
    for (const offset of [1, 7, 33]) {
      const both = bytes(2048).fill(9);
      const inner = both.subarray(offset, offset + 1024);
      inner.set(aligned);
      const same = aligned.slice();
      addon.cryptRange(XTS + 4, bytes(64).fill(1), NONE, inner, 2 ** 53 - 1, 512);
      addon.cryptRange(XTS + 4, bytes(64).fill(1), NONE, same, 2 ** 53 - 1, 512);
      expect(Buffer.compare(inner, same)).toBe(0);
      const around = [both.subarray(0, offset), both.subarray(offset + 1024)];
      expect(around.every((part) => part.every((byte) => byte === 9))).toBe(true);
    }
  });

  it.each<[string, number, number, Int32Array, Float64Array]>([
    ['no iterations', 0, 32, new Int32Array(1), new Float64Array(1)],
    ['too many iterations', 2 ** 31, 32, new Int32Array(1), new Float64Array(1)],
    ['no key', 1, 0, new Int32Array(1), new Float64Array(1)],
    ['a key too long', 1, 4097, new Int32Array(1), new Float64Array(1)],
    ['a key of less than none', 1, -1, new Int32Array(1), new Float64Array(1)],
    ['no flag', 1, 32, new Int32Array(0), new Float64Array(1)],
    ['another kind of flag', 1, 32, new Uint32Array(1) as never, new Float64Array(1)],
    ['no place for the cost', 1, 32, new Int32Array(1), new Float64Array(0)],
  ])('no key is derived with %s', (_, iterations, length, flag, cost) => {
    const derive = (): unknown =>
      addon.deriveByDigest('sha256', bytes(4), bytes(8), iterations, length, flag, cost);
    expect(derive).toThrow(TypeError);
  });

  it('no key is derived by a digest that is none, whatever its name', () => {
    for (const name of ['', 'sha2', 'SHA256', 'sha256sha256sha256sha256']) {
      const [flag, cost] = [new Int32Array(1), new Float64Array(1)];
      expect(addon.deriveByDigest(name, bytes(4), bytes(8), 1, 32, flag, cost)).toBeNull();
    }
    expect(() => addon.mixStripes(7 as never, bytes(32), bytes(32))).toThrow(TypeError);
  });

  it.each<[string, Uint8Array, Uint8Array]>([
    ['no block', bytes(32), NONE],
    ['a part of a stripe', bytes(48), bytes(32)],
    ['a block that is too long', bytes(8192), bytes(8192)],
    ['a block that was taken away', bytes(32), detached(32)],
  ])('stripes are not mixed with %s', (_, stripes, block) => {
    expect(() => addon.mixStripes('sha256', stripes, block)).toThrow(TypeError);
  });

  it('passwords, flags and places for the cost may be forgotten meanwhile', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const salt = bytes(8);
    const begun = Array.from({ length: 12 }, (_, index) => {
      const password = Uint8Array.of(index, 2, 3);
      const wanted = pbkdf2Sync(password, salt, 3000, 64, 'sha256');
      const [flag, cost] = [new Int32Array(1), new Float64Array(1)];
      const key = addon.deriveByDigest('sha256', password, salt, 3000, 64, flag, cost);
      // What it has of them is its own copy.
      password.fill(9);
      if (index % 3 === 0) flag[0] = 1;
      return { key, wanted, isCancelled: index % 3 === 0 };
    });
    collect();
    for (const { key, wanted, isCancelled } of begun) {
      const bytesOfKey = (await key) ?? wanted;
      collect();
      if (bytesOfKey.length === 0) expect(isCancelled).toBe(true);
      else expect(Buffer.compare(bytesOfKey, wanted)).toBe(0);
    }
  });
});
