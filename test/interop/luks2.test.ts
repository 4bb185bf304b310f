// SPDX-License-Identifier: Apache-2.0
// LUKS version 2 with cryptsetup: it makes headers and encrypts data that is read here, and
// decrypts what was written here.
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { CommandServer } from '../helpers/command-server.js';
import { cryptsetup, cryptsetupIn } from '../helpers/cryptsetup.js';

const MIB = 1024 ** 2;
const folder = mkdtempSync(join(tmpdir(), 'blockwright-luks2-'));
const server = new CommandServer();

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

const setup = cryptsetupIn(folder);

const SECRETS = ['--object', 'secret,id=one,file=one', '--object', 'secret,id=bad,data=bad'];

/** What it printed; what it complained of comes first. */
function ours(...words: string[]): string {
  const [program = '', ...rest] = words;
  const first = program === 'img' ? [program, rest.shift() ?? ''] : [program];
  if (rest[0] !== undefined && first[1] === 'luks') first.push(rest.shift() ?? '');
  const { out, err } = server.run(folder, [...first, ...SECRETS, ...rest]);
  return `${err}${out}`;
}

const PBKDF2 = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];
const LITTLE = ['--pbkdf-memory', '1024', '--pbkdf-force-iterations', '4'];
const SHA512 = ['--hash', 'sha512', '--sector-size', '512'];
const KINDS = {
  pbkdf2: [...PBKDF2, '--sector-size', '4096', '--label', 'a label'],
  argon2i: ['--pbkdf', 'argon2i', ...LITTLE, '--pbkdf-parallel', '1'],
  argon2id: ['--pbkdf', 'argon2id', ...LITTLE, '--pbkdf-parallel', '2', ...SHA512],
} as const;

describe.skipIf(cryptsetup === null)('a LUKS version 2 header of cryptsetup', () => {
  beforeAll(() => {
    writeFileSync(join(folder, 'one'), 'one');
    for (const [name, options] of Object.entries(KINDS)) {
      writeFileSync(join(folder, name), '');
      truncateSync(join(folder, name), 18 * MIB);
      setup('luksFormat', '-q', '--type', 'luks2', ...options, name, 'one');
    }
  });

  it.each(Object.keys(KINDS))('opens with its password and no other: %s', (name) => {
    const test = (secret: string): string =>
      ours('img', 'luks', 'test-passphrase', '--secret', secret, name);
    expect(test('one')).toBe('The secret opens keyslot 0.\n');
    expect(test('bad')).toBe('The secret opens no keyslot.\n');
  });

  it('is dumped', () => {
    for (const name of Object.keys(KINDS)) {
      expect(ours('img', 'luks', 'dump', name)).toBe(setup('luksDump', name));
    }
    const facts = JSON.parse(ours('img', 'luks', 'dump', '--output=json', 'argon2id')) as object;
    expect(facts).toMatchObject({
      version: 2,
      cipher: 'aes-xts-plain64',
      'payload-offset': 16 * MIB,
      'primary-copy': 'valid',
      'secondary-copy': 'valid',
      segments: [{ 'sector-size': 512 }],
      digests: [{ hash: 'sha512' }],
      keyslots: [{ keyslot: 0, active: true, kdf: 'argon2id', 'memory-kib': 1024, lanes: 2 }],
    });
  });

  it('is backed up byte for byte, and restored', () => {
    setup('luksHeaderBackup', 'argon2i', '--header-backup-file', 'theirs');
    expect(ours('img', 'luks', 'header-backup', 'argon2i', 'ours')).toBe('');
    const [own, other] = ['ours', 'theirs'].map((name) => readFileSync(join(folder, name)));
    expect(Buffer.compare(own as Buffer, other as Buffer)).toBe(0);
    expect(ours('img', 'luks', 'header-restore', 'argon2i', 'theirs')).toBe('Header restored.\n');
  });

  it('is told by info as version 1 is, with what it has besides', () => {
    const { 'format-specific': specific, encrypted } = JSON.parse(
      ours('img', 'info', '-f', 'luks', '--output=json', 'argon2id'),
    ) as { 'format-specific': { data: object }; encrypted: boolean };
    expect(encrypted).toBe(true);
    expect(specific).toEqual({
      type: 'luks',
      data: {
        'cipher-alg': 'aes-256',
        'cipher-mode': 'xts',
        'ivgen-alg': 'plain64',
        'hash-alg': 'sha512',
        uuid: /UUID:\s+(\S+)/.exec(setup('luksDump', 'argon2id'))?.[1],
        slots: [
          {
            active: true,
            'key-offset': 32_768,
            stripes: 4000,
            keyslot: 0,
            kdf: 'argon2id',
            passes: 4,
            'memory-kib': 1024,
            lanes: 2,
          },
        ],
        'payload-offset': 16 * MIB,
        'master-key-iters': 1000,
        version: 2,
        'sector-size': 512,
      },
    });
    const human = ours('img', 'info', '-f', 'luks', 'pbkdf2');
    expect(human).toContain('    cipher alg: aes-256\n');
    expect(human).toContain('    version: 2\n    sector size: 4096\n    label: a label\n');
  });

  it('is not guessed, and its keyslots are not changed', () => {
    expect(ours('img', 'info', 'pbkdf2')).toContain(
      'Its LUKS header is of version 2, which is not guessed',
    );
    expect(ours('img', 'info', '-f', 'luks', 'pbkdf2')).toContain('virtual size: 2 MiB');
    const image = 'driver=luks,key-secret=one,file.filename=pbkdf2';
    const amended = ours('img', 'amend', '-o', 'state=inactive', '--image-opts', image);
    expect(amended).toContain('Keyslots of LUKS version 2 cannot be changed');
  });

  it('is resized by whole sectors', () => {
    const image = ['--image-opts', 'driver=luks,key-secret=one,file.filename=pbkdf2'];
    const refusal = 'The new size must be a multiple of 4096';
    expect(ours('img', 'resize', ...image, String(3 * MIB + 512))).toContain(refusal);
    expect(ours('img', 'resize', ...image, String(3 * MIB))).toBe('Image resized.\n');
    expect(ours('io', ...image, '-c', 'length')).toBe('3 MiB\n');
    expect(ours('img', 'resize', '--shrink', ...image, '2M')).toBe('Image resized.\n');
  });

  it('may lie apart from the data', () => {
    writeFileSync(join(folder, 'apart'), '');
    truncateSync(join(folder, 'apart'), 16 * MIB);
    writeFileSync(join(folder, 'data'), Buffer.alloc(MIB));
    setup('luksFormat', '-q', '--type', 'luks2', ...PBKDF2, '--header', 'apart', 'data', 'one');
    const image =
      'driver=luks,key-secret=one,file.filename=data,header.driver=file,header.filename=apart';
    const lines = ['-c', 'write -q -P 5 0 64k', '-c', 'read -q -P 5 0 64k', '-c', 'length'];
    expect(ours('io', '--image-opts', image, ...lines)).toBe('1 MiB\n');
    expect(ours('img', 'info', '-f', 'luks', 'apart')).toContain("open that with option 'header'");
  });

  it('opens where it was made of one of version 1, whose digest is shorter', () => {
    writeFileSync(join(folder, 'made'), '');
    truncateSync(join(folder, 'made'), 4 * MIB);
    const slots = PBKDF2.slice(2);
    setup('luksFormat', '-q', '--type', 'luks1', ...slots, 'made', 'one');
    setup('convert', '-q', '--type', 'luks2', 'made');
    expect(ours('img', 'luks', 'dump', 'made')).toBe(setup('luksDump', 'made'));
    const test = ['luks', 'test-passphrase', '--secret', 'one', 'made'];
    expect(ours('img', ...test)).toBe('The secret opens keyslot 0.\n');
  });

  it('opens with its second copy when the first is lost', () => {
    const bytes = readFileSync(join(folder, 'pbkdf2'));
    bytes.fill(0, 0, 4096);
    writeFileSync(join(folder, 'lost'), bytes);
    const image = 'driver=luks,key-secret=one,file.filename=lost';
    const read = ours('io', '-r', '--image-opts', image, '-c', 'length');
    expect(read).toBe('2 MiB\n');
    expect(ours('img', 'luks', 'dump', 'lost')).toContain('first broken, second valid\n');
  });
});

describe.skipIf(cryptsetup === null)('data of LUKS version 2', () => {
  it.each([512, 4096])('is that of cryptsetup, with sectors of %i bytes', (sectorBytes) => {
    const name = `data-${sectorBytes}`;
    writeFileSync(join(folder, 'one'), 'one');
    const plain = Buffer.alloc(MIB, 'some words that are no zeroes ');
    writeFileSync(join(folder, name), plain);
    truncateSync(join(folder, name), 6 * MIB);
    const key = ['-q', '--key-file', 'one'];
    const reencrypt = ['reencrypt', ...key, '--force-offline-reencrypt'];
    const room = ['--luks2-metadata-size', '16k', '--luks2-keyslots-size', '1M'];
    const size = ['--reduce-device-size', '4M', '--sector-size', String(sectorBytes), ...room];
    setup(...reencrypt, '--encrypt', '--type', 'luks2', ...size, ...PBKDF2, name);

    const image = `driver=luks,key-secret=one,file.filename=${name}`;
    ours('img', 'convert', '-O', 'raw', '--image-opts', image, 'read');
    const read = readFileSync(join(folder, 'read'));
    expect(read.length).toBe(4 * MIB);
    expect(Buffer.compare(read.subarray(0, MIB), plain)).toBe(0);

    const writes = ['-c', 'write -q -P 7 100k 3k', '-c', 'write -q -P 9 900k 3M'];
    expect(ours('io', '--image-opts', image, ...writes)).toBe('');
    setup(...reencrypt, '--decrypt', '--header', `${name}.header`, name);
    const expected = Buffer.concat([plain, Buffer.alloc(4 * MIB)]);
    expected.fill(7, 100 * 1024, 103 * 1024).fill(9, 900 * 1024, 900 * 1024 + 3 * MIB);
    const decrypted = readFileSync(join(folder, name)).subarray(0, 900 * 1024 + 3 * MIB);
    expect(Buffer.compare(decrypted, expected.subarray(0, decrypted.length))).toBe(0);
  });
});
