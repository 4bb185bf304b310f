// SPDX-License-Identifier: Apache-2.0
// Each of the eight keyslots by its number: a password that is put there by `img amend` is opened
// by cryptsetup in that keyslot and in no other, and by the reference; one that cryptsetup or the
// reference put there is opened here, and the keyslot named. In LUKS of every kind, and in qcow2.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { CommandServer } from '../helpers/command-server.js';
import { runIn } from '../helpers/command-line.js';
import type { Outcome } from '../helpers/command-line.js';
import {
  isKnownToCryptsetup,
  isKnownToImg,
  LUKS_KINDS,
  modeOf,
  nameOf,
} from '../helpers/luks-kinds.js';
import type { LuksKind } from '../helpers/luks-kinds.js';
import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const isMissing = [peer('qemu-img'), peer('qemu-io'), peer('cryptsetup')].includes(null);
const SLOTS = [1, 2, 3, 4, 5, 6, 7, 0] as const;
/** The first password, and one for each keyslot; `k0`, … are files as well. */
const WORDS = ['first', ...SLOTS.map((slot) => `k${slot}`)];
const OBJECTS = WORDS.flatMap((word) => ['--object', `secret,id=${word},data=${word}`]);
const QUICK = '--pbkdf-force-iterations 1000';

let folder = '';
let server: CommandServer;

const run = (program: string, args: readonly string[]): Outcome =>
  runIn(folder, [peer(program) ?? '', ...args]);
const cryptsetup = (line: string): Outcome => run('cryptsetup', line.split(' '));
const blockwright = (words: readonly string[]): Outcome => server.run(folder, ['img', ...words]);
const testPassphrase = (format: Format, options: string): Outcome =>
  blockwright(['luks', 'test-passphrase', '-f', format, ...OBJECTS, ...options.split(' '), 'a']);

function expectDone({ status, err }: Outcome, what: string): void {
  expect([status, err], what).toEqual([0, '']);
}

type Format = 'luks' | 'qcow2';

const opened = (format: Format, word: string, image: string): string[] => {
  const key =
    format === 'luks' ? `key-secret=${word}` : `encrypt.format=luks,encrypt.key-secret=${word}`;
  return ['--image-opts', `driver=${format},${key},file.filename=${image}`];
};

/** Arguments of an amend that puts a password into its keyslot, by another password. */
function putArgs(format: Format, slot: number, by: string): string[] {
  const prefix = format === 'luks' ? '' : 'encrypt.';
  const options = { state: 'active', 'new-secret': `k${slot}`, keyslot: slot, 'iter-time': 0 };
  const text = Object.entries(options).map(([name, value]) => `${prefix}${name}=${value}`);
  const force = slot === 0 ? ['--force'] : [];
  return ['amend', ...force, ...OBJECTS, '-o', text.join(','), ...opened(format, by, 'a')];
}

/** What else opens the image while the first keyslot, which comes last, is exchanged. */
const keyFor = (slot: number, slots: readonly number[]): string =>
  slot === 0 && slots[0] !== 0 ? `k${slots[0]}` : 'first';

const cryptsetupOpens = (slot: number, word: string): number | null =>
  cryptsetup(`luksOpen --test-passphrase -q --key-slot ${slot} -d ${word} a`).status;

function expectNamed(format: Format, slot: number): void {
  const { out, status } = testPassphrase(format, `--secret k${slot}`);
  expect([out, status]).toEqual([`The secret opens keyslot ${slot}.\n`, 0]);
}

function expectImgReads(format: Format, slot: number): void {
  const args = ['-r', ...OBJECTS, '-c', 'read 0 512', ...opened(format, `k${slot}`, 'a')];
  const { out, err } = run('qemu-io', args);
  expect(out + err, `keyslot ${slot}`).toContain('read 512/512');
}

async function makeImage(kind: LuksKind): Promise<void> {
  const { spec, hash } = kind;
  if (!isKnownToCryptsetup(kind)) {
    writeFileSync(join(folder, 'a'), (await makeLuks(['first'], { spec })).bytes);
    return;
  }
  writeFileSync(join(folder, 'a'), '');
  truncateSync(join(folder, 'a'), 4 * 1024 * 1024);
  const keyBits = Number(spec.cipher.slice(4)) * (spec.mode === 'xts' ? 2 : 1);
  const kindWords = `--cipher ${modeOf(spec)} --key-size ${keyBits} --hash ${hash}`;
  const made = cryptsetup(`luksFormat -q --type luks1 ${QUICK} ${kindWords} a first`);
  expectDone(made, nameOf(kind));
}

/** Again while it does not measure how fast it is. */
function amendByReference(args: readonly string[]): void {
  for (let tried = 0; tried < 20; tried += 1) {
    const outcome = run('qemu-img', args);
    if (outcome.err.includes('Unable to get accurate CPU usage')) continue;
    expectDone(outcome, args.join(' '));
    return;
  }
}

describe.skipIf(isMissing)('keyslots by their number', () => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'luks-slots-'));
    for (const word of WORDS) writeFileSync(join(folder, word), word);
    server = new CommandServer();
  });
  afterAll(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  // In campaigns one would reach the end of its processor time.
  beforeEach(() => {
    if (!isCampaign) return;
    server.close();
    server = new CommandServer();
  });

  async function withImage(
    kind: LuksKind,
    act: (slots: readonly number[]) => void,
  ): Promise<void> {
    await makeImage(kind);
    act(someOf(SLOTS, 4, LUKS_KINDS.indexOf(kind)));
  }

  const kinds = someOf(LUKS_KINDS, 90).map((kind) => [nameOf(kind), kind] as const);

  it.each(kinds)('%s: what is put into a keyslot here opens there', (_, kind) =>
    withImage(kind, (slots) => {
      for (const slot of slots) {
        expectDone(blockwright(putArgs('luks', slot, keyFor(slot, slots))), `keyslot ${slot}`);
      }
      for (const slot of slots) {
        expectNamed('luks', slot);
        if (isKnownToImg(kind) && kind.spec.mode !== 'ecb') expectImgReads('luks', slot);
        if (!isKnownToCryptsetup(kind)) continue;
        expect(cryptsetupOpens(slot, `k${slot}`), `keyslot ${slot}`).toBe(0);
        expect(cryptsetupOpens((slot + 1) % 8, `k${slot}`)).not.toBe(0);
      }
      if (slots.includes(0)) expect(cryptsetupOpens(0, 'first')).not.toBe(0);
    }));

  it.each(kinds.filter(([, kind]) => isKnownToCryptsetup(kind)))(
    '%s: what cryptsetup puts into a keyslot is opened and named',
    (_, kind) =>
      withImage(kind, (slots) => {
        for (const slot of slots) {
          const by = keyFor(slot, slots);
          if (slot === 0 && by === 'first') continue;
          if (slot === 0) cryptsetup('luksKillSlot -q a 0');
          const line = `luksAddKey -q ${QUICK} --key-file ${by} --key-slot ${slot} a k${slot}`;
          expectDone(cryptsetup(line), line);
          expectNamed('luks', slot);
          const other = slot === 0 ? slots[0] : 0;
          const { out, status } = testPassphrase('luks', `--keyslot ${other} --secret k${slot}`);
          expect([out, status]).toEqual([`The secret does not open keyslot ${other}.\n`, 2]);
        }
      }),
  );

  it('within qcow2, what is put into a keyslot here opens there', async () => {
    const slots = someOf(SLOTS, 3, 2);
    writeFileSync(join(folder, 'a'), inQcow2((await makeLuks(['first'])).bytes));
    for (const slot of slots) {
      const done = blockwright(putArgs('qcow2', slot, keyFor(slot, slots)));
      expectDone(done, `keyslot ${slot}`);
    }
    for (const slot of slots) {
      expectNamed('qcow2', slot);
      expectImgReads('qcow2', slot);
    }
  });

  it.skipIf(!isCampaign).each(['luks', 'qcow2'] as const)(
    'what the reference puts into a keyslot of %s is opened and named',
    async (format) => {
      const { bytes } = await makeLuks(['first']);
      writeFileSync(join(folder, 'a'), format === 'luks' ? bytes : inQcow2(bytes));
      for (const slot of SLOTS) amendByReference(putArgs(format, slot, keyFor(slot, SLOTS)));
      for (const slot of SLOTS) expectNamed(format, slot);
    },
  );
});
