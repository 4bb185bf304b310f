// SPDX-License-Identifier: Apache-2.0
// `img luks` on the header within an encrypted qcow2 image, by each way to name one; cryptsetup and
// qemu-io on what it leaves.
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Permission } from '../../src/base/index.js';
import { createEngine } from '../../src/engine/index.js';
import { nativeAddon, openDefaultHost } from '../../src/host/index.js';
import { runIn } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { peer } from '../helpers/peers.js';

const cryptsetup = peer('cryptsetup');
const qemuIo = peer('qemu-io');

const folder = mkdtempSync(join(tmpdir(), 'blockwright-luks-qcow2-'));
const server = new CommandServer();
const SECRETS = ['one', 'two'].flatMap((id) => ['--object', `secret,id=${id},data=${id}`]);
const IMAGE = 'driver=qcow2,encrypt.key-secret=one,file.filename=e.qcow2';
const JSON_NAME =
  'json:{"driver":"qcow2","encrypt":{"key-secret":"two"},"file.filename":"e.qcow2"}';

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

function run(verb: string, words: readonly string[]) {
  const { out, err, status } = server.run(folder, [...verb.split(' '), ...words]);
  return { out, err, status };
}

const luks = (...words: string[]): ReturnType<typeof run> => run('img luks', words);

function done(verb: string, words: readonly string[]): void {
  const { err, status } = run(verb, words);
  if (status !== 0) throw new Error(`${verb}: ${err}`);
}

const fileOf = (name: string): Buffer => readFileSync(join(folder, name));

/** Where the extension 0x0537be77 says that the LUKS header is. */
function areaIn(image: Buffer): { offset: number; length: number } {
  const at = image.indexOf(Buffer.from('0537be7700000010', 'hex'));
  const length = Number(image.readBigUInt64BE(at + 16));
  return { offset: Number(image.readBigUInt64BE(at + 8)), length };
}

function poke(name: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(join(folder, name), 'r+');
  writeSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
}

beforeAll(() => {
  const options = 'encrypt.format=luks,encrypt.key-secret=one,encrypt.iter-time=0';
  const cipher = 'encrypt.cipher-alg=aes-128,cluster_size=4k';
  done('img create -q -f qcow2', [...SECRETS, '-o', `${options},${cipher}`, 'e.qcow2', '64k']);
  done('io -c', ['write -P 7 0 64k', ...SECRETS, '--image-opts', IMAGE]);
  done('img create -q -f qcow2', ['plain.qcow2', '64k']);
  const aes = 'encrypt.format=aes,encrypt.key-secret=one';
  done('img create -q -f qcow2', [...SECRETS, '-o', aes, 'aes.qcow2', '64k']);
});

describe('img luks on a qcow2 image', () => {
  it('finds the header by content, format, options and json: name', () => {
    const first = luks('dump', '--output=json', 'e.qcow2').out;
    expect(JSON.parse(first)).toMatchObject({ version: 1, cipher: 'aes-xts-plain64' });
    const { uuid } = JSON.parse(first) as { uuid: string };
    const names = [
      ['-f', 'qcow2', 'e.qcow2'],
      ['--image-opts', IMAGE],
      ['--image-opts', 'file.filename=e.qcow2'],
      [JSON_NAME],
      ['json:{"file":{"driver":"file","filename":"e.qcow2"}}'],
      ['-f', 'qcow2', 'json:{"file.filename":"e.qcow2"}'],
    ];
    for (const words of names) expect(luks('dump', ...words).out, words[0]).toContain(uuid);
  });

  it('refuses images without such a header, each in one line', () => {
    const line = (...words: string[]): string => {
      const { err, status } = luks('dump', ...words);
      expect(status).toBe(1);
      return err;
    };
    const start = 'blockwright img: ';
    expect(line('plain.qcow2')).toBe(
      `${start}'plain.qcow2': The qcow2 image is not encrypted: it has no LUKS header\n`,
    );
    expect(line('aes.qcow2')).toBe(
      `${start}'aes.qcow2': The qcow2 image is encrypted with AES: it has no LUKS header\n`,
    );
    expect(line('-f', 'luks', 'e.qcow2')).toContain('Volume is not in LUKS format');
    expect(line('-f', 'qcow2', JSON_NAME)).toContain('Driver specified twice');
    writeFileSync(join(folder, 'none'), Buffer.alloc(512));
    expect(line('--image-opts', `${IMAGE},foo=bar`)).toContain(
      "Block format 'qcow2' does not support the option 'foo'",
    );
    expect(line('-f', 'qcow2', 'none')).toContain('Image is not in qcow2 format');
    const { err } = luks('header-restore', '--force', 'plain.qcow2', 'none');
    expect(err).toContain('Volume is not in LUKS format');
  });

  it('tries the secret that the options of the image name', () => {
    expect(luks('test-passphrase', ...SECRETS, '--image-opts', IMAGE)).toMatchObject({ status: 0 });
    expect(luks('test-passphrase', ...SECRETS, JSON_NAME)).toMatchObject({ status: 2 });
    const limited = IMAGE.replace('encrypt.', 'encrypt.key-derivation-limit=x,encrypt.');
    const refused = luks('test-passphrase', ...SECRETS, '--image-opts', limited);
    expect(refused.err).toContain("'key-derivation-limit' expects a number");
  });

  it('keeps and restores the header, and nothing else of the image changes', () => {
    expect(luks('header-backup', 'e.qcow2', 'backup').status).toBe(0);
    const before = fileOf('e.qcow2');
    const { offset, length } = areaIn(before);
    expect(statSync(join(folder, 'backup')).size).toBe(length);
    const amend = 'encrypt.state=active,encrypt.new-secret=two,encrypt.iter-time=0';
    done('img amend', [...SECRETS, '-o', amend, '--image-opts', IMAGE]);
    expect(luks('test-passphrase', ...SECRETS, '--secret=two', 'e.qcow2').status).toBe(0);
    expect(luks('header-restore', 'e.qcow2', 'backup').out).toBe('Header restored.\n');
    expect(luks('test-passphrase', ...SECRETS, '--secret=two', 'e.qcow2').status).toBe(2);
    expect(Buffer.compare(fileOf('e.qcow2'), before)).toBe(0);

    const readOnly = luks('header-restore', '--image-opts', `${IMAGE},read-only=on`, 'backup');
    expect(readOnly.err).toContain('Block node is read-only');
    poke('e.qcow2', offset, Buffer.alloc(512));
    const read = ['read -P 7 0 64k', ...SECRETS, '--image-opts', IMAGE];
    expect(run('io -c', read).status).toBe(1);
    expect(luks('header-restore', JSON_NAME, 'backup').err).toContain('--force restores');
    expect(luks('header-restore', '-q', '--force', JSON_NAME, 'backup').status).toBe(0);
    expect(Buffer.compare(fileOf('e.qcow2'), before)).toBe(0);
    expect(run('io -c', read).status).toBe(0);
  });

  const isLocked = nativeAddon() !== null;
  it.skipIf(!isLocked)('restores no header of an image in use, and looks at it', async () => {
    await using engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
    const { consistentRead, all } = Permission;
    const node = await engine.graph.openImage(join(folder, 'e.qcow2'), 'raw', true);
    const user = await engine.graph.attach(node, 'test', { taken: consistentRead, shared: all });
    const refused = luks('header-restore', 'e.qcow2', 'backup');
    expect(refused.status).toBe(1);
    expect(refused.err).toContain("Could not open 'e.qcow2': Failed to get shared");
    expect(luks('dump', 'e.qcow2').status).toBe(0);
    await user.detach();
    await engine.graph.close(node);
  });

  it.skipIf(cryptsetup === null)('keeps a header that cryptsetup takes', () => {
    writeFileSync(join(folder, 'one'), 'one');
    const test = ['open', '--test-passphrase', '--key-file', 'one', 'backup'];
    expect(runIn(folder, [cryptsetup ?? '', ...test])).toMatchObject({ status: 0 });
    const dumped = runIn(folder, [cryptsetup ?? '', 'luksDump', 'backup']).out;
    expect(dumped).toMatch(/Key Slot 0: ENABLED/);
  });

  it.skipIf(qemuIo === null)('leaves an image that qemu-io opens', () => {
    const words = ['-c', 'read -P 7 0 64k', ...SECRETS, '--image-opts', IMAGE];
    expect(runIn(folder, [qemuIo ?? '', ...words])).toMatchObject({ status: 0 });
  });
});
