// SPDX-License-Identifier: Apache-2.0
// Bytes for passwords and keys, which their holder wipes.
//
// A short array lies in the heap of V8, whose collector moves it and leaves copies that nobody can
// reach. What has a buffer of its own stays where it is.

/** Zeroes. */
export function secretBytes(length: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(length));
}

export function secretCopy(bytes: Uint8Array): Uint8Array {
  const copy = secretBytes(bytes.length);
  copy.set(bytes);
  return copy;
}
