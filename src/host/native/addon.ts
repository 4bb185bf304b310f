// SPDX-License-Identifier: Apache-2.0
// Loads the addon, once, and gives its entry points their types.
//
// Numbers returned are results from 0 up, or minus errno. Without the addon (not built, another
// platform, an older build, BLOCKWRIGHT_NATIVE=0) everything works through the portable host.

import { createRequire } from 'node:module';

import { packageFile } from '../package-root.js';

export interface NativeAddon {
  /** Bytes read, 0 at the end; -EAGAIN when it would wait for the disk. */
  readNoWait(descriptor: number, buffer: Uint8Array, offset: number): number;
  /** Writes all of the buffer. */
  writeAll(descriptor: number, buffer: Uint8Array, offset: number): number;
  /** fallocate(2), on this thread. */
  allocateNow(descriptor: number, mode: number, offset: number, length: number): number;
  /** fallocate(2), on a thread of the pool. */
  allocateLater(descriptor: number, mode: number, offset: number, length: number): Promise<number>;
  /**
   * Copies between descriptors on a thread of the pool: a program of numbers, and numbers in
   * answer (native/copy.cc has their order). Steps not begun when `cancel[0]` is not 0 are skipped.
   * With `writeBack` 1 the host begins to write back what was written, and nobody waits for it.
   * `keys` holds those that the program names, and is copied.
   */
  copyLater(
    program: Float64Array,
    cancel: Int32Array,
    writeBack: 0 | 1,
    keys: Uint8Array,
  ): Promise<Float64Array>;
  fileSize(descriptor: number): number;
  seekData(descriptor: number, offset: number): number;
  seekHole(descriptor: number, offset: number): number;
  /** Sets a shared lock of the open file description. */
  lockShared(descriptor: number, start: number, length: number): number;
  unlock(descriptor: number, start: number, length: number): number;
  /** 1 if another description holds a lock in the range. */
  testLock(descriptor: number, start: number, length: number): number;
  /** How many leading bytes are zero. */
  zeroPrefix(buffer: Uint8Array): number;
  /**
   * Encrypts (`way` + 4) or decrypts whole sectors in place; `vector` is the number of the first
   * one's. `way` is 0 ECB, 1 CBC, 2 XTS, + 8 with vectors of 32 bits, + 16 without the widest
   * instructions, + 32 where vectors count 512 bytes in longer sectors; `vectorKey` is that of
   * essiv, else empty. -ENOTSUP where the processor has no AES.
   */
  cryptRange(
    way: number,
    key: Uint8Array,
    vectorKey: Uint8Array,
    data: Uint8Array,
    vector: number,
    sectorBytes: number,
  ): number;
  /**
   * PBKDF2 with HMAC on a thread of the pool: the key, or nothing once `cancel[0]` is not 0;
   * `cost[0]` is then what the thread had of a processor, in milliseconds. Null for digests that it
   * has no instructions for.
   */
  deriveByDigest(
    digest: string,
    password: Uint8Array,
    salt: Uint8Array,
    iterations: number,
    length: number,
    cancel: Int32Array,
    cost: Float64Array,
  ): Promise<Uint8Array> | null;
  /**
   * Mixes stripes, each as long as `block`, into `block` by the diffusion of LUKS. -ENOTSUP for
   * digests that the processor has no instructions for.
   */
  mixStripes(digest: string, stripes: Uint8Array, block: Uint8Array): number;
}

const ENTRY_POINTS = [
  'readNoWait',
  'writeAll',
  'allocateNow',
  'allocateLater',
  'copyLater',
  'fileSize',
  'seekData',
  'seekHole',
  'lockShared',
  'unlock',
  'testLock',
  'zeroPrefix',
  'cryptRange',
  'deriveByDigest',
  'mixStripes',
] as const satisfies readonly (keyof NativeAddon)[];

let loaded: NativeAddon | null | undefined;

/** The addon, or null when it is not to be had. */
export function nativeAddon(): NativeAddon | null {
  if (loaded === undefined) {
    loaded = process.env['BLOCKWRIGHT_NATIVE'] === '0' ? null : load();
  }
  return loaded;
}

function load(): NativeAddon | null {
  try {
    const require = createRequire(import.meta.url);
    const addon = require(packageFile('native/build/blockwright.node')) as Partial<NativeAddon>;
    const whole = ENTRY_POINTS.every((name) => typeof addon[name] === 'function');
    return whole ? (addon as NativeAddon) : null;
  } catch {
    return null;
  }
}
