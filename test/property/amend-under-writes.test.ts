// SPDX-License-Identifier: Apache-2.0
// A guest reads and writes while keyslots come and go: each byte is what it wrote last, during the
// changes, after them, and when the image is opened again by any password that is left.
import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import type { Backend } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { READ_WRITE } from '../helpers/graph.js';
import { KeyslotStage, PASSWORDS } from '../helpers/keyslot-stage.js';
import type { Members } from '../helpers/keyslot-stage.js';
import { makeLuks } from '../helpers/luks-images.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const FORMATS = ['luks', 'qcow2'] as const;
const BYTES = 2 ** 20;
const SECTOR = 512;
const CHANGES = 8;

class Guest {
  readonly model = new Uint8Array(BYTES);
  readonly #backend: Backend;
  readonly #random: SeededRandom;
  isOver = false;

  constructor(backend: Backend, seed: number) {
    this.#backend = backend;
    this.#random = new SeededRandom(seed);
  }

  #below(count: number): number {
    const bytes = new Uint8Array(4);
    this.#random.fill(bytes);
    return new DataView(bytes.buffer).getUint32(0) % count;
  }

  /** One request after the other until it is over; gives their number. */
  async work(): Promise<number> {
    let count = 0;
    for (; !this.isOver || count < 50; count += 1) {
      const offset = this.#below(BYTES / SECTOR) * SECTOR;
      const length = Math.min(BYTES - offset, (1 + this.#below(150)) * SECTOR);
      if (this.#below(3) === 0) await this.#check(offset, length);
      else await this.#write(offset, length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return count;
  }

  async #write(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(length);
    this.#random.fill(bytes);
    this.model.set(bytes, offset);
    await this.#backend.write(offset, bytes);
    if (this.#below(8) === 0) await this.#backend.flush();
  }

  async #check(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(length);
    await this.#backend.read(offset, bytes);
    const wanted = this.model.subarray(offset, offset + length);
    expect(Buffer.compare(bytes, wanted), `at ${offset}`).toBe(0);
  }
}

async function guestOf(stage: KeyslotStage): Promise<Backend> {
  const { graph } = stage.engine;
  return await graph.attach(graph.require('l'), 'guest', READ_WRITE);
}

/** A password more in a keyslot of its own, then less: none of them is the last. */
function wishes(seed: number): Members[] {
  return Array.from({ length: CHANGES }, (_, index) => {
    const keyslot = 2 + ((index >> 1) * 5 + seed) % 6;
    if (index % 2 === 1 && index < CHANGES - 1) return { state: 'inactive', keyslot };
    return { state: 'active', keyslot, 'new-secret': 'new' };
  });
}

async function play(format: (typeof FORMATS)[number], seed: number): Promise<void> {
  const isLuks = format === 'luks';
  const { bytes } = await makeLuks(['one', 'two'], { payload: isLuks ? BYTES : 0 });
  const stage = await new KeyslotStage(new MemoryHost(), format).start(bytes);
  const backend = await guestOf(stage);
  await backend.writeZeroes(0, BYTES);
  const guest = new Guest(backend, seed);
  const working = guest.work();
  for (const wish of wishes(seed)) expect(await stage.amend(wish, true)).toBeNull();
  guest.isOver = true;
  expect(await working).toBeGreaterThan(0);
  await backend.flush();
  await backend.detach();
  for (const word of PASSWORDS) {
    const changed = { 'node-name': 'l', driver: format, file: 'f' };
    await stage.run('blockdev-del', { 'node-name': 'l' });
    const encrypt = { format: 'luks', 'key-secret': word };
    await stage.run('blockdev-add', {
      ...changed, ...(isLuks ? { 'key-secret': word } : { encrypt }),
    });
    const again = await guestOf(stage);
    const read = new Uint8Array(BYTES);
    await again.read(0, read);
    expect(Buffer.compare(read, guest.model), word).toBe(0);
    await again.detach();
  }
  await stage.end();
}

describe('a guest at work while keyslots change', () => {
  it.each(FORMATS)('finds what it wrote in %s', (format) =>
    forEachSeed(runs(1, Number(process.env['BLOCKWRIGHT_CAMPAIGN'] ?? 1)), (seed) =>
      play(format, seed),
    ));
});
