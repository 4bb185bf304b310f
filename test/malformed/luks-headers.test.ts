// SPDX-License-Identifier: Apache-2.0
// Encryption headers with a thing or two changed, alone, in qcow2 and of version 2: each opens with
// the data that it always had, or is refused by one line in no time; nothing is ever written.
import { beforeAll, describe, expect, it } from 'vitest';

import { BlockError } from '../../src/base/index.js';
import { readRequest } from '../../src/block/index.js';
import type { NodeOptions, OpenPolicy } from '../../src/block/index.js';
import { makeSectorCipher, SECTOR_BYTES } from '../../src/crypto/index.js';
import { headerAreaBytes, materialBytes, parseLuksHeader } from '../../src/crypto/luks/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { makeGraph } from '../helpers/job-stage.js';
import { LUKS_PASSWORD } from '../helpers/luks.js';
import { inQcow2, makeLuks, QUICK_SPEC } from '../helpers/luks-images.js';
import { luks1Mutant, luks2Mutant, qcow2LuksMutant } from '../helpers/luks-mutants.js';
import type { Luks2Base, Mutant } from '../helpers/luks-mutants.js';
import { makeLuks2 } from '../helpers/luks2-payload.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const SEEDS = runs(12, 4000);
const PAYLOAD = 16 * 1024;
/** Processor time of a refusal, with what it takes to measure how long a key takes. */
const MOST_SECONDS = 1;
const SLOTS_AT = 208;
const SLOT_BYTES = 48;
const KINDS = ['corrupt-image', 'unsupported', 'permission', 'too-large', 'invalid-option'];

const plain = new Uint8Array(PAYLOAD).map((_, at) => (at % 251) + 1);
let luks1: Uint8Array;
let qcow2: Uint8Array;
let luks2: Luks2Base;
beforeAll(async () => {
  const made = await makeLuks([LUKS_PASSWORD], { payload: PAYLOAD });
  luks1 = made.bytes;
  const cipher = { spec: QUICK_SPEC, key: made.masterKey, sectorBytes: SECTOR_BYTES };
  const payload = luks1.subarray(headerAreaBytes(QUICK_SPEC));
  payload.set(plain);
  makeSectorCipher(cipher).encrypt(payload, 0);
  qcow2 = inQcow2(luks1.slice(0, headerAreaBytes(QUICK_SPEC)));
  luks2 = await makeLuks2(plain);
});

interface Opening {
  readonly driver: 'luks' | 'qcow2';
  readonly expected: Uint8Array;
  /** Names of changes that make other data of the same bytes. */
  readonly other: RegExp;
}

/** The message that refuses it, or `opened`. */
async function play({ name, bytes }: Mutant, opening: Opening): Promise<string> {
  const host = new MemoryHost();
  host.putFile('image', bytes);
  const graph = makeGraph(host);
  const limit = { 'key-secret': 'k', 'key-derivation-limit': 1 };
  const options = opening.driver === 'luks' ? limit : { encrypt: { format: 'luks', ...limit } };
  const file = { driver: 'file', filename: 'image' };
  const wish = { driver: opening.driver, ...options, 'read-only': true, file };
  const before = process.cpuUsage();
  let outcome = 'opened';
  try {
    for (const policy of [{ inspectOnly: true }, {}] satisfies OpenPolicy[]) {
      const node = await graph.open(wish as unknown as NodeOptions, policy);
      if (policy.inspectOnly === true) continue;
      const buffer = new Uint8Array(Math.min(node.length, PAYLOAD));
      await node.read(readRequest(0, buffer));
      const isOther = opening.other.test(name) || buffer.length < PAYLOAD;
      if (!isOther) expect(Buffer.compare(buffer, opening.expected), name).toBe(0);
    }
  } catch (error) {
    if (!(error instanceof BlockError)) throw new Error(name, { cause: error });
    expect(KINDS, `${name}: ${error.stack}`).toContain(error.kind);
    outcome = error.message;
    expect(outcome, name).toMatch(/^[^\p{Cc}]{10,400}$/u);
  } finally {
    await graph.closeAll();
  }
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1e6, name).toBeLessThan(MOST_SECONDS);
  expect(Buffer.compare(host.fileContents('image'), bytes), name).toBe(0);
  return outcome;
}

describe('an encryption header', () => {
  it('opens with its data as it was made', async () => {
    const opened: string[] = [];
    const other = /nothing/;
    const images = [['luks', luks1], ['qcow2', qcow2], ['luks', luks2.bytes]] as const;
    for (const [driver, bytes] of images) {
      const expected = driver === 'luks' ? plain : new Uint8Array(PAYLOAD);
      opened.push(await play({ name: driver, bytes }, { driver, expected, other }));
    }
    expect(opened).toEqual(['opened', 'opened', 'opened']);
  });
});

describe('an encryption header with something changed', () => {
  it('of version 1 opens as it was or is refused', async () => {
    const other = /payload_offset|cipher_|byte/;
    await forEachSeed(SEEDS, async (seed) => {
      await play(luks1Mutant(luks1, seed), { driver: 'luks', expected: plain, other });
    });
  });

  it('that opens gains a keyslot and loses it, with nothing else written', async () => {
    await forEachSeed(SEEDS, async (seed) => {
      const { name, bytes } = luks1Mutant(luks1, seed);
      const host = new MemoryHost();
      host.putFile('image', bytes);
      const graph = makeGraph(host);
      const file = { driver: 'file', filename: 'image' };
      const key = { 'key-secret': 'k', 'key-derivation-limit': 1 };
      const node = await graph.open({ driver: 'luks', ...key, file } as never).catch(() => null);
      if (node === null) return;
      const header = parseLuksHeader(bytes, { detached: false });
      const free = header.keyslots.findIndex(({ active }) => !active);
      if (free >= 0) {
        const context = { force: false, resize: () => Promise.reject(new Error('no resize')) };
        const added = { state: 'active', 'new-secret': 'k', 'iter-time': 0 };
        await node.driverNode.amend?.(added, context);
        await node.driverNode.amend?.({ state: 'inactive', keyslot: free }, context);
      }
      await graph.closeAll();
      const images = [host.fileContents('image'), bytes].map((image) => {
        const copy = image.slice();
        const keyslot = header.keyslots[free];
        if (keyslot === undefined) return copy;
        const { materialOffset: start } = keyslot;
        copy.fill(0, start, start + materialBytes(header.spec));
        return copy.fill(0, SLOTS_AT + SLOT_BYTES * free, SLOTS_AT + SLOT_BYTES * (free + 1));
      });
      expect(Buffer.compare(...(images as [Uint8Array, Uint8Array])), name).toBe(0);
    });
  });

  it('in qcow2 opens as it was or is refused', async () => {
    const zero = new Uint8Array(PAYLOAD);
    // Another L1 table is other data, and so is the older method of encryption.
    const other = /l1_table_offset|crypt_method|extension/;
    await forEachSeed(SEEDS, async (seed) => {
      await play(qcow2LuksMutant(qcow2, seed), { driver: 'qcow2', expected: zero, other });
    });
  });

  it('of version 2 opens as it was or is refused', async () => {
    const other = /segments/;
    await forEachSeed(SEEDS, async (seed) => {
      await play(luks2Mutant(luks2, seed), { driver: 'luks', expected: plain, other });
    });
  });
});
