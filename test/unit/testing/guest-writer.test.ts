// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { DiskModel, GuestWriter, SeededRandom } from '../../../src/testing/index.js';

function plainDisk(length: number) {
  const bytes = new Uint8Array(length);
  let pending = 0;
  return {
    bytes,
    write(offset: number, buffer: Uint8Array) {
      bytes.set(buffer, offset);
      pending += 1;
      return pending % 2 === 0 ? Promise.resolve() : undefined;
    },
    writeZeroes(offset: number, length: number) {
      bytes.fill(0, offset, offset + length);
    },
    flush() {},
  };
}

async function runGuest(seed: number) {
  const disk = plainDisk(100_352);
  const model = new DiskModel(disk.bytes.length);
  const guest = new GuestWriter({ disk, model, random: new SeededRandom(seed) });
  for (let step = 0; step < 200; step += 1) await guest.step();
  return { disk, model, guest };
}

describe('the guest writer', () => {
  it('keeps its model equal to the disk', async () => {
    const { disk, model, guest } = await runGuest(7);
    expect(model.firstDifference(disk.bytes)).toBeNull();
    expect(guest.writtenBytes).toBeGreaterThan(0);
  });
  it('does the same again from the same seed', async () => {
    const [first, second] = [await runGuest(3), await runGuest(3)];
    expect(first.model.firstDifference(second.disk.bytes)).toBeNull();
  });
  it('does not touch the model when the disk refuses', () => {
    const model = new DiskModel(4096);
    const refuse = () => {
      throw new Error('refused');
    };
    const disk = { write: refuse, writeZeroes: refuse, flush: refuse };
    const guest = new GuestWriter({ disk, model, random: new SeededRandom(1) });
    expect(() => guest.step()).toThrow('refused');
    expect(model.firstDifference(new Uint8Array(4096))).toBeNull();
  });
});

describe('the disk model', () => {
  it('names the first byte that differs, as a disk offset', () => {
    const model = new DiskModel(8192);
    model.write(4100, new Uint8Array([1, 2, 3]));
    expect(model.firstDifference(new Uint8Array(4096), 4096)).toBe(4100);
  });
  it('keeps a snapshot apart from later writes', () => {
    const model = new DiskModel(16);
    const before = model.snapshot();
    model.write(0, new Uint8Array([9]));
    expect(before.bytes[0]).toBe(0);
  });
});
