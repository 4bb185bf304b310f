// SPDX-License-Identifier: Apache-2.0
// A backup of a LUKS header is one state of it, whoever changes keyslots while it is read.
import { describe, expect, it } from 'vitest';
import { KeyslotEditor, parseAnyLuksHeader, readBackup } from '../../../src/crypto/luks/index.js';
import { makeLuks, MemoryArea, quickTools } from '../../helpers/luks-images.js';

const HEADER_BYTES = 592;

/** Gives the bytes of `states` read by read; the last of them goes on. */
class ChangingArea extends MemoryArea {
  #reads = 0;
  readonly #states: readonly Uint8Array[];

  constructor(states: readonly Uint8Array[]) {
    super(states[0] ?? new Uint8Array());
    this.#states = states;
  }

  override read(offset: number, length: number): Promise<Uint8Array> {
    const state = this.#states[Math.min(this.#reads, this.#states.length - 1)] ?? this.bytes;
    this.#reads += 1;
    return Promise.resolve(state.slice(offset, offset + length));
  }
}

async function states() {
  const { bytes: before } = await makeLuks(['one', 'two']);
  const area = new MemoryArea(before.slice());
  const header = parseAnyLuksHeader(before);
  await new KeyslotEditor(area, header, quickTools).erase(1);
  const torn = area.bytes.slice();
  torn.set(before.subarray(0, HEADER_BYTES));
  return { before, torn, after: area.bytes, header };
}

describe('a backup of a header whose keyslots change', () => {
  it('holds no keyslot without its key material', async () => {
    const { before, torn, after, header } = await states();
    const expected = await readBackup(new MemoryArea(after), header);
    const orders = [
      [before, torn, after],
      [before, after],
      [torn, torn, after],
    ];
    for (const order of orders) {
      const backup = await readBackup(new ChangingArea(order), header);
      expect(Buffer.compare(backup, expected)).toBe(0);
    }
  });

  it('is refused where they do not cease to', async () => {
    const { before, after, header } = await states();
    const area = new ChangingArea(Array.from({ length: 20 }, (_, at) => (at % 2 ? after : before)));
    await expect(readBackup(area, header)).rejects.toThrow('its keyslots are being changed');
  });
});
