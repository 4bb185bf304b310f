// SPDX-License-Identifier: Apache-2.0
// Random sequences of changes of keyslots, by `img amend` and by `x-blockdev-amend`, of LUKS alone
// and in qcow2. After each change the keyslots are those of a model (the last key is never lost
// without force), each opens by its password and no other, and the reference, which plays along,
// has said the same and keeps the same keyslots. That one takes seconds for a new password: outside
// campaigns it is not asked for any.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { HEADER_BYTES, parseLuksHeader } from '../../src/crypto/luks/index.js';
import { CommandServer } from '../helpers/command-server.js';
import { runIn } from '../helpers/command-line.js';
import type { Outcome } from '../helpers/command-line.js';
import { jobOutcome } from '../helpers/job-outcomes.js';
import { changed, keyslotWish, membersOf, MODEL_PASSWORDS } from '../helpers/keyslot-model.js';
import type { KeyslotWish, Slots } from '../helpers/keyslot-model.js';
import { inQcow2, luksOfQcow2, makeLuks, slotPasswords } from '../helpers/luks-images.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { hello } from '../helpers/reference.js';
import { forEachSeed, runs, someOf } from '../helpers/seeds.js';
import { command, Conversation } from '../helpers/transcript.js';

const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
/** The reference measures for two seconds, and often in vain. */
const SEED_MS = 60_000;
const TIMES = runs(1, Number(process.env['BLOCKWRIGHT_CAMPAIGN'] ?? 1));
const isMissing = [peer('qemu-img'), peer('qemu-storage-daemon')].includes(null);

const FORMATS = ['luks', 'qcow2'] as const;
type Format = (typeof FORMATS)[number];
const OPENING = 'a';
const STARTS: readonly Slots[] = [
  ['a', 'b', null, 'c', 'b', null, null, 'a'],
  ['a', null, null, null, null, null, null, null],
  ['a', 'a', 'b', 'b', 'c', 'c', 'd', 'd'],
  [null, null, null, 'b', null, 'a', null, null],
];

const startOf = (seed: number): Slots => STARTS[seed % STARTS.length] as Slots;

/** Somebody who changes keyslots of an image, and what is said to a wish. */
interface Player {
  readonly file: string;
  say(wish: KeyslotWish): Promise<string>;
}

async function slotsOf(file: string, format: Format): Promise<Slots> {
  const bytes = readFileSync(file);
  const luks = format === 'luks' ? bytes : luksOfQcow2(bytes);
  const header = parseLuksHeader(luks.subarray(0, HEADER_BYTES), { detached: false });
  const found = await slotPasswords(luks, header, MODEL_PASSWORDS);
  return found.map((each) => (each === 'erased' ? null : each));
}

const MISMEASURED = 'Unable to get accurate CPU usage';
const REFUSAL = /^(?!done)/;

function amendLine(format: Format, wish: KeyslotWish): string[] {
  const prefix = format === 'luks' ? '' : 'encrypt.';
  const options = Object.entries(membersOf(wish)).map(([name, value]) => {
    return `${prefix}${name}=${value}`;
  });
  const key = `key-secret=${wish.by ?? OPENING}`;
  const opened = format === 'luks' ? key : `encrypt.format=luks,encrypt.${key}`;
  return [
    'amend',
    ...(wish.force ? ['--force'] : []),
    ...MODEL_PASSWORDS.flatMap((word) => ['--object', `secret,id=${word},data=${word}`]),
    '-o',
    options.join(','),
    '--image-opts',
    `driver=${format},${opened},file.filename=a`,
  ];
}

function imgPlayer(
  format: Format,
  folder: string,
  run: (words: readonly string[]) => Outcome,
): Player {
  const attempt = (wish: KeyslotWish): string => {
    const { out, err, status } = run(amendLine(format, wish));
    return status === 0 ? `done${out}${err}` : `${status}: ${out}${err}`;
  };
  return {
    file: join(folder, 'a'),
    say(wish) {
      let said = attempt(wish);
      for (let again = 0; again < 20 && said.includes(MISMEASURED); again += 1) {
        said = attempt(wish);
      }
      return Promise.resolve(said);
    },
  };
}

async function qmpPlayer(
  format: Format,
  folder: string,
  conversation: Conversation,
): Promise<Player> {
  const file = join(folder, 'a');
  const key = { 'key-secret': OPENING };
  await conversation.greeting();
  for (const step of [
    hello,
    ...MODEL_PASSWORDS.map((word) =>
      command('object-add', { 'qom-type': 'secret', id: word, data: word }),
    ),
    command('blockdev-add', {
      driver: format, 'node-name': 'n', file: { driver: 'file', filename: file },
      ...(format === 'luks' ? key : { encrypt: { format: 'luks', ...key } }),
    }),
  ]) {
    expect(JSON.stringify(await conversation.play(step))).not.toContain('error');
  }
  return {
    file,
    say(wish) {
      const { state, by } = wish;
      const secret = by !== undefined && state === 'active' ? { secret: by } : {};
      const members = { ...membersOf(wish), ...secret };
      const options =
        format === 'luks'
          ? { driver: format, ...members }
          : { driver: format, encrypt: { format: 'luks', ...members } };
      const args = { 'node-name': 'n', options, force: wish.force };
      return jobOutcome(conversation, 'x-blockdev-amend', args);
    },
  };
}

interface Stage {
  readonly format: Format;
  readonly by: 'img' | 'qmp';
  readonly players: readonly Player[];
}

interface Model {
  slots: Slots;
}

class Change implements fc.AsyncCommand<Model, Stage> {
  readonly #wish: KeyslotWish;

  constructor(wish: KeyslotWish) {
    this.#wish = wish;
  }

  check({ slots }: Readonly<Model>): boolean {
    const { state } = this.#wish;
    return isCampaign || state === 'inactive' || changed(slots, this.#wish, OPENING) === null;
  }

  async run(model: Model, { format, by, players }: Stage): Promise<void> {
    const wish = this.#wish;
    // A command line opens the image first.
    const opens = by === 'qmp' || model.slots.includes(wish.by ?? OPENING);
    const after = opens ? changed(model.slots, wish, OPENING) : null;
    const said: string[] = [];
    for (const player of players) {
      said.push(await player.say(wish));
      expect(await slotsOf(player.file, format), player.file).toEqual(after ?? model.slots);
    }
    for (const each of said) expect(REFUSAL.test(each), each).toBe(after === null);
    expect(new Set(said), said.join('\n')).toHaveLength(1);
    model.slots = after ?? model.slots;
  }

  toString(): string {
    return JSON.stringify(this.#wish);
  }
}

const changes = fc.commands([keyslotWish.map((wish) => new Change(wish))], {
  maxCommands: isCampaign ? 12 : 9, size: 'max',
});

/** The same image for both, with the keyslots that this seed begins with. */
async function put(format: Format, folders: readonly string[], seed: number): Promise<void> {
  const image = (await makeLuks(startOf(seed).map((each) => each ?? undefined))).bytes;
  const bytes = format === 'luks' ? image : inQcow2(image);
  for (const folder of folders) writeFileSync(join(folder, 'a'), bytes);
}

async function play(stage: Stage, seed: number): Promise<void> {
  const slots = startOf(seed);
  await fc.assert(
    fc.asyncProperty(changes, async (list) => {
      await fc.asyncModelRun(() => ({ model: { slots }, real: stage }), list);
    }),
    { seed, numRuns: 1, endOnFailure: true },
  );
}

async function inFolders(act: (ours: string, theirs: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'amend-model-'));
  try {
    const folders = [join(folder, 'ours'), join(folder, 'theirs')] as const;
    for (const each of folders) mkdirSync(each);
    await act(...folders);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe.skipIf(isMissing)('random changes of keyslots and the reference', () => {
  it.each(someOf(FORMATS, 2))('img amend of %s keeps to the model', (format) =>
    inFolders(async (ours, theirs) => {
      const server = new CommandServer();
      const players = [
        imgPlayer(format, ours, (words) => {
          return server.run(ours, ['--as', 'qemu-img', 'img', ...words]) as Outcome;
        }),
        imgPlayer(format, theirs, (words) => runIn(theirs, [peer('qemu-img') ?? '', ...words])),
      ];
      try {
        await forEachSeed(TIMES, async (seed) => {
          await put(format, [ours, theirs], seed);
          await play({ format, by: 'img', players }, seed);
        });
      } finally {
        server.close();
      }
    }), TIMES * SEED_MS);

  it.each(someOf(FORMATS, 2, 1))('x-blockdev-amend of %s keeps to the model', (format) =>
    forEachSeed(TIMES, (seed) =>
      inFolders(async (ours, theirs) => {
        await put(format, [ours, theirs], seed);
        await using own = await startOwnDaemon(ours);
        await using real = await startRealDaemon(peer('qemu-storage-daemon') ?? '', theirs);
        const players = [
          await qmpPlayer(format, ours, new Conversation(await own.connect())),
          await qmpPlayer(format, theirs, new Conversation(real.socket)),
        ];
        await play({ format, by: 'qmp', players }, seed);
      }),
    ), TIMES * SEED_MS);
});
