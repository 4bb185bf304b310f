// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';

import {
  BufferPool,
  isAlignedBuffer,
  SLAB_ALIGNMENT,
  SLAB_BYTES,
} from '../../../src/host/index.js';

it('slabs are shared memory, aligned, and do not overlap', () => {
  const pool = new BufferPool();
  const slabs = Array.from({ length: 40 }, () => pool.take());
  expect(pool.taken).toBe(40);
  for (const [index, slab] of slabs.entries()) {
    expect(slab.buffer).toBeInstanceOf(SharedArrayBuffer);
    expect(slab).toHaveLength(SLAB_BYTES);
    expect(isAlignedBuffer(slab, SLAB_ALIGNMENT)).toBe(true);
    slab.fill(index);
  }
  for (const [index, slab] of slabs.entries()) {
    expect(slab[0]).toBe(index);
    expect(slab[SLAB_BYTES - 1]).toBe(index);
    pool.give(slab);
  }
  expect(pool.taken).toBe(0);
});

it('a slab given back is used again', () => {
  const pool = new BufferPool();
  const slab = pool.take();
  pool.give(slab);
  expect(pool.take()).toBe(slab);
});

it('part of a slab cannot be given back', () => {
  const pool = new BufferPool();
  expect(() => pool.give(pool.take().subarray(0, 512))).toThrow('a slab is given back whole');
  expect(() => pool.give(new Uint8Array(new SharedArrayBuffer(SLAB_BYTES)))).toThrow('whole');
});

it('other memory does not count as aligned', () => {
  expect(isAlignedBuffer(new Uint8Array(4096), 512)).toBe(false);
  expect(isAlignedBuffer(new BufferPool().take().subarray(1, 513), 512)).toBe(false);
});
