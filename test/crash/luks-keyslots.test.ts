// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write while keyslots change: what was valid is valid or erased.
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { deriveKey } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import type { LuksHeader, NewKeyslot } from '../../src/crypto/luks/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  headerAreaBytes,
  HEADER_BYTES,
  KeyslotEditor,
  parseLuksHeader,
  unlockSlot,
} from '../../src/crypto/luks/index.js';
import { CutArea, PowerCut } from '../helpers/cut-area.js';

const SPEC: CipherSpec = { cipher: 'aes-128', mode: 'ecb', ivGenerator: null, ivHash: null };
const random = new SeededRandom(5);
/** Long buffers are noise enough as one byte each. */
const fill = (buffer: Uint8Array): void => {
  if (buffer.length > 1024) buffer.fill(random.below(256));
  else random.fill(buffer);
};
const tools = { derive: deriveKey, fill };

interface Volume {
  readonly bytes: Uint8Array;
  readonly masterKey: Uint8Array;
}

const password = (slot: number): Uint8Array => Buffer.from(`password ${slot}`);

/** A volume with these keyslots active. */
async function volumeOf(slots: readonly number[]): Promise<Volume> {
  const made = await formatLuks(
    {
      spec: SPEC,
      hash: 'sha1',
      password: password(0),
      slotIterations: 1,
      digestIterations: 1,
      detached: false,
    },
    tools,
  );
  const bytes = new Uint8Array(headerAreaBytes(SPEC));
  bytes.set(encodeLuksHeader(made.header));
  bytes.set(made.material, 4096);
  const area = new CutArea(bytes);
  const editor = new KeyslotEditor(area, made.header, tools);
  for (const slot of slots) if (slot !== 0) await editor.add(slot, keyOf(made.masterKey, slot));
  if (!slots.includes(0)) await editor.erase(0);
  return { bytes: area.bytes, masterKey: made.masterKey };
}

function keyOf(masterKey: Uint8Array, slot: number): NewKeyslot {
  return { masterKey, password: password(slot), iterations: 1 };
}

type State = 'erased' | 'old' | 'new' | 'broken';

/** What each keyslot is good for. */
async function statesOf(
  disk: Uint8Array,
  masterKey: Uint8Array,
  lost?: number,
): Promise<State[]> {
  const header = parseLuksHeader(disk.subarray(0, HEADER_BYTES), { detached: false });
  const area = new CutArea(disk, 0);
  const states: State[] = [];
  for (const [slot, keyslot] of header.keyslots.entries()) {
    const opens = async (word: Uint8Array): Promise<boolean> => {
      const key = await unlockSlot({ area, header, keyslot }, word, deriveKey);
      return key !== null && Buffer.compare(key, masterKey) === 0;
    };
    if (!keyslot.active) states.push('erased');
    else if (slot === lost) states.push('broken');
    else if (await opens(password(slot))) states.push('old');
    else states.push((await opens(password(99))) ? 'new' : 'broken');
  }
  return states;
}

interface Change {
  readonly name: string;
  readonly slots: readonly number[];
  readonly act: 'add' | 'erase';
  readonly slot: number;
  /** Is active, and its key material is damaged. */
  readonly lost?: number;
}

const CHANGES: readonly Change[] = [
  { name: 'one more, in the last sector', slots: [0], act: 'add', slot: 7 },
  { name: 'one more, across the sector border', slots: [0], act: 'add', slot: 6 },
  { name: 'one of two erased', slots: [0, 6], act: 'erase', slot: 6 },
  { name: 'one of two replaced', slots: [0, 6], act: 'add', slot: 6 },
  { name: 'the only one replaced', slots: [6], act: 'add', slot: 6 },
  { name: 'one in the last sector erased', slots: [0, 7], act: 'erase', slot: 7 },
  { name: 'one replaced whose neighbour is damaged', slots: [0, 6], act: 'add', slot: 6, lost: 0 },
];

describe('keyslots under power cuts', () => {
  let volumes: Volume[];
  beforeAll(async () => {
    volumes = [];
    for (const { slots, lost } of CHANGES) {
      const volume = await volumeOf(slots);
      const { keyslots } = headerOf(volume.bytes);
      const at = lost === undefined ? undefined : keyslots[lost]?.materialOffset;
      if (at !== undefined) volume.bytes.fill(0, at, at + 512);
      volumes.push(volume);
    }
  });

  it.each(CHANGES.map((change, index) => ({ ...change, index })))('$name', async (change) => {
    const { bytes, masterKey } = volumes[change.index] as Volume;
    const header = headerOf(bytes);
    const known = (states: readonly State[]): State[] =>
      states.filter((_, slot) => slot !== change.lost);
    const run = async (area: CutArea): Promise<boolean> => {
      const editor = new KeyslotEditor(area, header, tools);
      const wish = { ...keyOf(masterKey, 99), provenSlot: change.slot };
      try {
        if (change.act === 'add') await editor.add(change.slot, wish);
        else await editor.erase(change.slot);
        return true;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        return false;
      }
    };
    const whole = new CutArea(bytes);
    await run(whole);
    for (const writes of [...turningPoints(whole.lengths), Infinity]) {
      const area = new CutArea(bytes, writes);
      const ended = await run(area);
      expect(ended).toBe(writes === Infinity);
      const disk = area.afterCut(random);
      const states = await statesOf(disk, masterKey, change.lost);
      expect(known(states), `after ${writes} writes`).not.toContain('broken');
      expect(known(states).some((state) => state !== 'erased')).toBe(true);
      for (const [slot, { active }] of header.keyslots.entries()) {
        if (!active || slot === change.lost) continue;
        if (slot !== change.slot) expect(states[slot]).toBe('old');
        else if (states[slot] === 'erased') requireSaltGone(header, headerOf(disk), slot);
      }
      if (!ended) continue;
      expect(states[change.slot]).toBe(change.act === 'add' ? 'new' : 'erased');
      expect(states.filter((state) => state === 'new').length).toBe(change.act === 'add' ? 1 : 0);
    }
  });

  it('leave nothing of the erased key material', async () => {
    const { bytes } = volumes[2] as Volume;
    const header = headerOf(bytes);
    const area = new CutArea(bytes);
    await new KeyslotEditor(area, header, tools).erase(6);
    const { materialOffset } = header.keyslots[6] as LuksHeader['keyslots'][number];
    const range = [materialOffset, materialOffset + 64_000] as const;
    const before = bytes.subarray(...range);
    const after = area.bytes.subarray(...range);
    const same = before.reduce((count, byte, at) => count + (byte === after[at] ? 1 : 0), 0);
    expect(same).toBeLessThan(64_000 / 64);
    expect(headerOf(area.bytes).keyslots[6]?.salt.every((byte) => byte === 0)).toBe(true);
  });
});

/** What of it lies in another sector than the state may go later. */
function requireSaltGone(before: LuksHeader, after: LuksHeader, slot: number): void {
  const length = slot === 6 ? 8 : 32;
  const [was, is] = [before, after].map(({ keyslots }) => keyslots[slot]?.salt.slice(0, length));
  expect(is, `salt of keyslot ${slot}`).not.toEqual(was);
}

/** Every write but those amidst overwriting, which are all alike. */
function turningPoints(lengths: readonly number[]): number[] {
  return lengths.flatMap((length, index) =>
    lengths[index - 1] === length && lengths[index + 1] === length ? [] : [index],
  );
}

function headerOf(bytes: Uint8Array): LuksHeader {
  return parseLuksHeader(bytes.subarray(0, HEADER_BYTES), { detached: false });
}
