// SPDX-License-Identifier: Apache-2.0
// `img luks` on headers that cryptsetup made, and cryptsetup on what it leaves.
import {
  copyFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { CommandServer } from '../helpers/command-server.js';
import { cryptsetup, cryptsetupIn } from '../helpers/cryptsetup.js';

const QUICK = ['-q', '--pbkdf-force-iterations', '1000'];

const folder = mkdtempSync(join(tmpdir(), 'blockwright-img-luks-'));
const server = new CommandServer();

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

function luks(...words: string[]): { out: string; err: string; status: number | null } {
  const { out, err, status } = server.run(folder, ['img', 'luks', ...words]);
  return { out, err, status };
}

const setup = cryptsetupIn(folder);

const fileOf = (name: string): Buffer => readFileSync(join(folder, name));
const SECRETS = ['one', 'two', 'bad'].flatMap((id) => ['--object', `secret,id=${id},file=${id}`]);

describe('img luks', () => {
  it('refuses what it does not know', () => {
    expect(luks().err).toContain('Expecting a command; there are dump, test-passphrase');
    expect(luks('add-key', 'x').err).toContain('Command not found: luks add-key');
    expect(luks('dump', '--secret', 'x', 'y').err).toContain("unrecognized option '--secret'");
    expect(luks('dump').err).toContain('Expecting one image file name');
    expect(luks('header-backup', 'x').err).toContain('an image and the file of its backup');
    expect(luks('dump', '-f', 'vmdk', 'x').err).toContain("Format 'vmdk' has no LUKS header");
    expect(luks('add-key', 'x').status).toBe(1);
  });

  it('names what is no LUKS image', () => {
    writeFileSync(join(folder, 'empty'), Buffer.alloc(4096));
    expect(luks('dump', 'empty')).toMatchObject({
      status: 1,
      err: "blockwright img: 'empty': Volume is not in LUKS format\n",
    });
  });
});

describe.skipIf(cryptsetup === null)('img luks beside cryptsetup', () => {
  beforeAll(() => {
    for (const word of ['one', 'two', 'bad']) writeFileSync(join(folder, word), word);
    for (const name of ['a', 'head', 'c']) {
      writeFileSync(join(folder, name), '');
      truncateSync(join(folder, name), 4 * 1024 ** 2);
    }
    const type = ['luksFormat', ...QUICK, '--type', 'luks1'];
    setup(...type, 'a', 'one');
    setup('luksAddKey', ...QUICK, '--key-file', 'one', 'a', 'two');
    setup(...type, '--header', 'head', 'c', 'one');
    setup(...type, '-c', 'aes-cbc-essiv:sha256', '-s', '192', '--hash', 'sha1', 'c', 'one');
  });

  it('dumps what the header says, and no key', () => {
    const dumped = setup('luksDump', 'a');
    const facts = JSON.parse(luks('dump', '--output=json', 'a').out) as Record<string, unknown>;
    expect(facts).toMatchObject({
      filename: 'a',
      version: 1,
      uuid: /UUID:\s+(\S+)/.exec(dumped)?.[1],
      cipher: 'aes-xts-plain64',
      'key-bits': 512,
      hash: 'sha256',
      'payload-offset': 4096 * 512,
      digest: { iterations: 1000 },
    });
    const { keyslots, digest } = facts as {
      keyslots: { active: boolean; salt: string; 'material-offset': number }[];
      digest: { value: string; salt: string };
    };
    expect(keyslots.map(({ active }) => active)).toEqual([true, true, ...Array(6).fill(false)]);
    expect(keyslots.map((slot) => slot['material-offset']).slice(0, 2)).toEqual([4096, 262_144]);
    const squeezed = dumped.replaceAll(/\s/g, '');
    for (const text of [digest.value, digest.salt, keyslots[1]?.salt]) {
      expect(squeezed).toContain(text);
    }
    for (const name of ['a', 'c', 'head']) {
      expect(luks('dump', name).out).toBe(setup('luksDump', name));
    }
  });

  it('tells which keyslot a secret opens', () => {
    const test = ['test-passphrase', ...SECRETS];
    expect(luks(...test, '--secret', 'two', 'a').out).toBe('The secret opens keyslot 1.\n');
    expect(luks(...test, '--secret=two', '--keyslot=0', 'a')).toEqual({
      out: 'The secret does not open keyslot 0.\n',
      err: '',
      status: 2,
    });
    const json = luks(...test, '--output=json', '--secret=two', 'a');
    expect(JSON.parse(json.out)).toEqual({ unlocked: true, keyslot: 1 });
    const wrong = luks(...test, '--output=json', '--secret=bad', 'head');
    expect([JSON.parse(wrong.out), wrong.status]).toEqual([{ unlocked: false }, 2]);
    const options = 'driver=luks,key-secret=one,file.filename=c';
    expect(luks(...test, '--image-opts', options).status).toBe(0);
    expect(luks(...test, 'a').err).toContain('Which secret?');
    expect(luks(...test, '--secret=none', 'a').err).toContain("No secret with id 'none'");
    const inactive = luks(...test, '--secret=one', '--keyslot=5', 'a');
    expect(inactive).toMatchObject({ status: 1 });
    expect(inactive.err).toContain("Keyslot 5 of 'a' is not active");
    expect(luks(...test, '--secret=one', '--keyslot=8', 'a').err).toContain('Invalid keyslot 8');
  });

  it.each(['a', 'c', 'head'])('keeps the bytes that cryptsetup keeps of %s', (name) => {
    setup('luksHeaderBackup', name, '--header-backup-file', `${name}.theirs`);
    expect(luks('header-backup', name, `${name}.ours`)).toEqual({ out: '', err: '', status: 0 });
    expect(Buffer.compare(fileOf(`${name}.ours`), fileOf(`${name}.theirs`))).toBe(0);
    expect(statSync(join(folder, `${name}.ours`)).mode & 0o777).toBe(0o600);
    const again = luks('header-backup', name, `${name}.ours`);
    expect(again).toMatchObject({ status: 1 });
    expect(again.err).toContain('exists already');
  });

  it('puts back what was kept, and asks for --force where it is of another image', () => {
    copyFileSync(join(folder, 'a'), join(folder, 'b'));
    setup('luksKillSlot', '-q', 'b', '1');
    const payload = fileOf('b').subarray(4096 * 512);
    expect(luks('header-restore', 'b', 'a.ours').out).toBe('Header restored.\n');
    setup('open', '--test-passphrase', '--key-file', 'two', 'b');
    const bytes = fileOf('a.ours');
    expect(Buffer.compare(fileOf('b').subarray(0, bytes.length), bytes)).toBe(0);
    expect(Buffer.compare(fileOf('b').subarray(4096 * 512), payload)).toBe(0);

    const before = fileOf('b');
    const other = luks('header-restore', 'b', 'c.ours');
    expect(other).toMatchObject({ status: 1 });
    expect(other.err).toContain('The backup has another UUID');
    const none = luks('header-restore', 'empty', 'c.ours');
    expect(none.err).toContain('it does not fit');
    writeFileSync(join(folder, 'torn'), bytes.subarray(0, 100_000));
    expect(luks('header-restore', 'b', 'torn').err).toContain('the backup ends at 100000 bytes');
    expect(Buffer.compare(fileOf('b'), before)).toBe(0);

    writeFileSync(join(folder, 'b'), Buffer.concat([Buffer.alloc(512), before.subarray(512)]));
    expect(luks('header-restore', 'b', 'a.ours').err).toContain('--force');
    expect(luks('header-restore', '-q', '--force', 'b', 'a.ours').status).toBe(0);
    expect(Buffer.compare(fileOf('b'), before)).toBe(0);
  });
});
