// SPDX-License-Identifier: Apache-2.0
// `img luks` on headers of version 2 beside cryptsetup: the same dump, the same backups, and each
// restores what the other kept.
import {
  copyFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { parseBackup2, restoreHeader2 } from '../../src/crypto/luks2/index.js';
import { runIn } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { cryptsetup, cryptsetupIn } from '../helpers/cryptsetup.js';
import { CutArea, PowerCut } from '../helpers/cut-area.js';
import { Luks2Maker } from '../helpers/luks2-maker.js';
import { someOf } from '../helpers/seeds.js';

const MIB = 1024 * 1024;
const AREA = ['--luks2-metadata-size', '16k', '--luks2-keyslots-size', '1m', '--offset', '4096'];
const QUICK = ['-q', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];
const ARGON = ['-q', '--pbkdf', 'argon2i', '--pbkdf-memory', '64', '--pbkdf-parallel', '1'];

const folder = mkdtempSync(join(tmpdir(), 'blockwright-img-luks2-'));
const server = new CommandServer();

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

function luks(...words: string[]) {
  const { out, err, status } = server.run(folder, ['img', 'luks', ...words]);
  return { out, err, status };
}

const setup = cryptsetupIn(folder);

const fileOf = (name: string): Buffer => readFileSync(join(folder, name));
const isSame = (left: string, right: string): boolean =>
  Buffer.compare(fileOf(left), fileOf(right)) === 0;

function opens(image: string, password: string): boolean {
  const words = ['open', '--test-passphrase', '--key-file', password, image];
  return runIn(folder, [cryptsetup ?? '', ...words]).status === 0;
}

function newFile(name: string): void {
  writeFileSync(join(folder, name), '');
  truncateSync(join(folder, name), 4 * MIB);
}

describe.skipIf(cryptsetup === null)('img luks on LUKS version 2 beside cryptsetup', () => {
  beforeAll(() => {
    for (const word of ['one', 'two', 'old', 'new']) writeFileSync(join(folder, word), word);
    for (const name of ['a', 'b', 'v1']) newFile(name);
    setup('luksFormat', ...QUICK, '--type', 'luks2', ...AREA, '--label', 'my label', 'a', 'one');
    const cipher = ['--keyslot-cipher', 'aes-cbc-essiv:sha256', '--keyslot-key-size', '256'];
    const slow = [...ARGON, '--pbkdf-force-iterations', '4', ...cipher];
    setup('luksAddKey', ...slow, '--key-file', 'one', 'a', 'two');
    setup('luksAddKey', ...QUICK, '--unbound', '--key-size', '256', '--key-slot', '3', 'a', 'two');
    setup('config', 'a', '--key-slot', '1', '--priority', 'prefer');
    writeFileSync(join(folder, 'token'), '{"type":"mine","keyslots":["1","0"]}');
    setup('token', 'import', '--json-file', 'token', 'a');
    setup('token', 'add', '--key-description', 'a key', '--token-id', '2', 'a');
    setup('luksFormat', ...QUICK, '--type', 'luks1', 'v1', 'one');
  });

  it('dumps what cryptsetup does, of both versions', () => {
    for (const name of ['a', 'v1']) expect(luks('dump', name).out).toBe(setup('luksDump', name));
  });

  it('dumps every part of the header as JSON', () => {
    const { out } = luks('dump', '--output=json', 'a');
    const facts = JSON.parse(out) as Record<string, Record<string, unknown>[]>;
    expect(facts).toMatchObject({ version: 2, label: 'my label', cipher: 'aes-xts-plain64' });
    expect(facts['segments']).toMatchObject([{ segment: 0, offset: 2 * MIB, 'sector-size': 4096 }]);
    expect(facts['keyslots']).toMatchObject([
      { keyslot: 0, active: true, kdf: 'pbkdf2', iterations: 1000, 'key-bits': 512 },
      { keyslot: 1, kdf: 'argon2i', passes: 4, 'memory-kib': 64, lanes: 1, priority: 2 },
      { keyslot: 3, active: false },
    ]);
    expect(facts['tokens']).toMatchObject([
      { token: 0, type: 'mine', keyslots: [1, 0] },
      { token: 2, type: 'luks2-keyring', 'key-description': 'a key' },
    ]);
    expect(facts['digests']).toMatchObject([
      { digest: 0, type: 'pbkdf2', keyslots: [0, 1], segments: [0] },
      { digest: 1, keyslots: [3], segments: [] },
    ]);
  });

  it('tells of a copy that is broken', () => {
    copyFileSync(join(folder, 'a'), join(folder, 'torn'));
    const bytes = fileOf('torn');
    writeFileSync(join(folder, 'torn'), bytes.fill(0, 0, 4096));
    expect(luks('dump', 'torn').out).toContain('Copies:        \tfirst broken, second valid\n');
  });

  it('keeps the bytes that cryptsetup keeps, and each restores those of the other', () => {
    setup('luksHeaderBackup', 'a', '--header-backup-file', 'a.theirs');
    const backup = luks('header-backup', '--output=json', 'a', 'a.ours');
    const uuid = /UUID:\s+(\S+)/.exec(setup('luksDump', 'a'))?.[1];
    const facts = { filename: 'a', backup: 'a.ours', version: 2, uuid };
    expect(JSON.parse(backup.out)).toEqual({ ...facts, bytes: MIB + 32_768 });
    const restored = luks('header-restore', '--output=json', 'a', 'a.ours');
    expect(JSON.parse(restored.out)).toEqual(facts);
    expect(isSame('a.ours', 'a.theirs')).toBe(true);
    for (const name of ['x', 'y']) copyFileSync(join(folder, 'a'), join(folder, name));
    for (const name of ['x', 'y']) setup('luksKillSlot', '-q', name, '1');
    expect(opens('x', 'two')).toBe(false);
    expect(luks('header-restore', 'x', 'a.theirs').out).toBe('Header restored.\n');
    setup('luksHeaderRestore', '-q', 'y', '--header-backup-file', 'a.ours');
    expect(isSame('x', 'y')).toBe(true);
    expect(isSame('x', 'a')).toBe(true);
    expect(opens('x', 'two')).toBe(true);
  });

  it('restores over a header of another image or version by force alone', () => {
    setup('luksFormat', ...QUICK, '--type', 'luks2', ...AREA, 'b', 'two');
    expect(luks('header-restore', 'b', 'a.ours').err).toContain('The backup has another UUID');
    expect(luks('header-restore', '-q', '--force', 'b', 'a.ours').status).toBe(0);
    expect([opens('b', 'one'), isSame('b', 'a')]).toEqual([true, true]);

    expect(luks('header-backup', 'v1', 'v1.bak').status).toBe(0);
    const other = luks('header-restore', 'b', 'v1.bak');
    expect(other.err).toContain('The backup has another LUKS version (1) than the header of');
    expect(luks('header-restore', '-q', '--force', 'b', 'v1.bak').status).toBe(0);
    expect(setup('luksDump', 'b')).toBe(setup('luksDump', 'v1').replace('for v1', 'for b'));
    expect(luks('header-restore', '-q', '--force', 'b', 'a.ours').status).toBe(0);
    expect(opens('b', 'one')).toBe(true);
    writeFileSync(join(folder, 'short'), fileOf('a.ours').subarray(0, 100_000));
    expect(luks('header-restore', 'b', 'short').err).toContain('the backup ends at 100000 bytes');
  });

  it('asks for force where the backup has no keyslot', () => {
    copyFileSync(join(folder, 'a'), join(folder, 'z'));
    setup('luksErase', '-q', 'z');
    expect(luks('header-backup', 'z', 'z.bak').status).toBe(0);
    expect(luks('header-restore', 'a', 'z.bak').err).toContain('has no active keyslot');
    expect(opens('a', 'one')).toBe(true);
  });

  it('leaves what cryptsetup opens wherever the power goes', async () => {
    const maker = new Luks2Maker(7);
    const header = (password: string, sequence: number) =>
      maker.make({ slots: { 0: { password, room: 0 } }, rooms: 2, sequence });
    const backup = await parseBackup2(await header('old', 3));
    const present = await header('new', 5);
    const whole = new CutArea(present);
    const place = (area: CutArea) => ({ area, length: present.length });
    await restoreHeader2(place(whole), backup, { force: false });
    for (const writes of someOf([...whole.lengths.keys()], 3, 1)) {
      const area = new CutArea(present, writes);
      const work = restoreHeader2(place(area), backup, { force: false });
      await expect(work).rejects.toThrow(PowerCut);
      writeFileSync(join(folder, 'cut'), area.bytes);
      truncateSync(join(folder, 'cut'), 17 * MIB);
      expect(opens('cut', 'old') || opens('cut', 'new'), `after ${writes} writes`).toBe(true);
    }
  });
});
