// SPDX-License-Identifier: Apache-2.0
// The anti-forensic splitter: a key becomes many stripes, all of which are needed to have it back.
//
// Source: "LUKS1 On-Disk Format Specification" 1.2.3, section 2.4. A stripe is as long as the key;
// all but the last are random, the last makes the chain of xor and diffusion end at the key.
// Diffusion hashes each digest-long piece together with its number, the last piece cut short.

import { assert, secretBytes } from '../../base/index.js';
import { nativeAddon } from '../../host/index.js';
import { digestOf } from '../digest.js';
import type { HashName } from '../names.js';
import { HASH_BYTES } from '../names.js';

/** `fill` puts random bytes into the stripes. */
export function splitKey(
  key: Uint8Array,
  { hash, stripes }: { readonly hash: HashName; readonly stripes: number },
  fill: (buffer: Uint8Array) => void,
): Uint8Array {
  const split = new Uint8Array(key.length * stripes);
  const last = split.length - key.length;
  fill(split.subarray(0, last));
  const block = chainOf(split.subarray(0, last), hash, key.length);
  for (let at = 0; at < key.length; at += 1) split[last + at] = (block[at] ?? 0) ^ (key[at] ?? 0);
  block.fill(0);
  return split;
}

/** The key that was split into whole stripes of `length` bytes. */
export function mergeKey(split: Uint8Array, length: number, hash: HashName): Uint8Array {
  assert(split.length % length === 0, 'stripes are whole');
  const last = split.length - length;
  const key = chainOf(split.subarray(0, last), hash, length);
  for (let at = 0; at < length; at += 1) key[at] = (key[at] ?? 0) ^ (split[last + at] ?? 0);
  return key;
}

/** Stripe after stripe mixed in and diffused. */
function chainOf(stripes: Uint8Array, hash: HashName, length: number): Uint8Array {
  const block = secretBytes(length);
  if (nativeAddon()?.mixStripes(hash, stripes, block) === 0) return block;
  mixStripes(stripes, block, hash);
  return block;
}

/** What the addon does where it has the digest: stripes as long as `block` are mixed into it. */
export function mixStripes(stripes: Uint8Array, block: Uint8Array, hash: HashName): void {
  for (let start = 0; start < stripes.length; start += block.length) {
    for (let at = 0; at < block.length; at += 1) {
      block[at] = (block[at] ?? 0) ^ (stripes[start + at] ?? 0);
    }
    diffuse(block, hash);
  }
}

function diffuse(block: Uint8Array, hash: HashName): void {
  const piece = HASH_BYTES[hash];
  const message = secretBytes(4 + piece);
  const number = new DataView(message.buffer);
  for (let start = 0, index = 0; start < block.length; start += piece, index += 1) {
    const part = block.subarray(start, start + piece);
    number.setUint32(0, index);
    message.set(part, 4);
    const digest = digestOf(hash, message.subarray(0, 4 + part.length));
    part.set(digest.subarray(0, part.length));
    digest.fill(0);
  }
  message.fill(0);
}
