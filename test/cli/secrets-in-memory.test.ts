// SPDX-License-Identifier: Apache-2.0
// Once images are closed and secrets removed, nothing of passwords and keys is left in the memory
// of a daemon. All comes out of files: what a command line or a monitor is told is text, which
// nobody can wipe.
import { createCipheriv, createHash, pbkdf2Sync, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { QmpClient } from '../../src/client/index.js';
import { canCryptNatively, deriveKey } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import { parseLuksHeader, unlockAny } from '../../src/crypto/luks/index.js';
import { nativeAddon } from '../../src/host/index.js';
import { inQcow2, makeLuks, MemoryArea } from '../helpers/luks-images.js';
import { canReadMemory, foundInMemory } from '../helpers/process-memory.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import type { ProgramDaemon } from '../helpers/program-daemon.js';

const ESSIV: CipherSpec = {
  cipher: 'aes-256',
  mode: 'cbc',
  ivGenerator: 'essiv',
  ivHash: 'sha256',
};
const XTS: CipherSpec = { cipher: 'aes-256', mode: 'xts', ivGenerator: 'plain64', ivHash: null };
/** OpenSSL's results and WebCrypto's keys are not ours to wipe. */
const addon = nativeAddon();
const block = new Uint8Array(32);
const isNative =
  addon !== null &&
  canCryptNatively(addon) &&
  addon.mixStripes('sha256', block, block.slice()) === 0;

const secrets: Record<string, Uint8Array> = {};
let folder = '';
let daemon: ProgramDaemon;

const at = (name: string): string => join(folder, name);
const run: QmpClient['execute'] = (...words) => daemon.client.execute(...words);
const password = (name: string): Buffer => {
  const text = Buffer.from(randomBytes(24).toString('base64url'));
  secrets[`password ${name}`] = text;
  return text;
};

/** The key, its halves, and what else is made of it. */
function noteKey(name: string, key: Uint8Array): void {
  secrets[`${name}, start`] = key.subarray(0, 16);
  secrets[`${name}, end`] = key.subarray(-16);
  secrets[`${name}, digest`] = createHash('sha256').update(key).digest().subarray(0, 16);
}

async function putImage(name: string, spec: CipherSpec, text: Buffer): Promise<void> {
  const { bytes, masterKey } = await makeLuks([text.toString()], { spec });
  writeFileSync(at(name), name.endsWith('qcow2') ? inQcow2(bytes) : bytes);
  noteKey(`key of ${name}`, masterKey);
  const { iterations, salt } = parseLuksHeader(bytes.subarray(0, 592), { detached: false })
    .keyslots[0] as { iterations: number; salt: Uint8Array };
  noteKey(`keyslot of ${name}`, pbkdf2Sync(text, salt, iterations, masterKey.length, 'sha256'));
}

/** A password that another secret wraps, both in files. */
function putWrapped(text: Buffer): string {
  const [key, iv] = [randomBytes(32), randomBytes(16)];
  const cipher = createCipheriv('aes-256-cbc', key, iv);
  const wrapped = Buffer.concat([cipher.update(text), cipher.final()]);
  writeFileSync(at('wrapped'), wrapped.toString('base64'));
  writeFileSync(at('wrapping'), key);
  noteKey('the wrapping key', key);
  return iv.toString('base64');
}

const found = (): readonly string[] => foundInMemory(daemon.pid, secrets);

describe.skipIf(!isNative)('of passwords and keys', () => {
  let iv = '';
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'blockwright-memory-'));
    const words = new Map(['one', 'two', 'wrong'].map((name) => [name, password(name)]));
    for (const [name, text] of words) writeFileSync(at(name), text);
    const [one, two] = [words.get('one'), words.get('two')] as [Buffer, Buffer];
    await putImage('xts.luks', XTS, one);
    await putImage('essiv.luks', ESSIV, two);
    await putImage('essiv.qcow2', ESSIV, one);
    for (const name of ['new.luks', 'plain.qcow2']) writeFileSync(at(name), '');
    iv = putWrapped(two);
    daemon = await startProgramDaemon(folder);
  });
  afterAll(async () => {
    await daemon.end('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  const addSecret = (id: string, more: object): Promise<unknown> =>
    run('object-add', { 'qom-type': 'secret', id, ...more } as never);
  const luks = (name: string, secret: string): unknown =>
    run('blockdev-add', {
      driver: 'luks', 'node-name': name, 'key-secret': secret,
      file: { driver: 'file', filename: at(`${name}.luks`) },
    });
  const done = async (
    name: 'x-blockdev-amend' | 'blockdev-backup' | 'blockdev-create',
    args: object,
  ): Promise<void> => void (await (await daemon.client.start(name, args as never)).completed());

  /** Clusters are deflated by lanes in JavaScript, which decrypt what they read. */
  async function compressedBackup(): Promise<void> {
    await run('blockdev-add', { driver: 'file', 'node-name': 'p', filename: at('plain.qcow2') });
    const options = { driver: 'qcow2', file: 'p', size: 65_536 };
    await done('blockdev-create', { 'job-id': 'p', options });
    await run('blockdev-add', { driver: 'qcow2', 'node-name': 'plain', file: 'p' });
    await done('blockdev-backup', {
      'job-id': 'd', device: 'xts', target: 'plain', sync: 'full', compress: true,
    });
    for (const name of ['plain', 'p']) await run('blockdev-del', { 'node-name': name });
  }

  it('what is in use is there, and nothing of what was a step on the way', async ({ skip }) => {
    skip(!canReadMemory(daemon.pid), 'the system lets nobody look');
    await addSecret('one', { file: at('one') });
    await addSecret('k', { file: at('wrapping') });
    const wrapped = { file: at('wrapped'), format: 'base64', keyid: 'k' };
    await addSecret('two', { ...wrapped, iv });
    await addSecret('wrong', { file: at('wrong') });
    await luks('xts', 'one');
    await luks('essiv', 'two');
    await run('blockdev-add', {
      driver: 'qcow2', 'node-name': 'inside', encrypt: { format: 'luks', 'key-secret': 'one' },
      file: { driver: 'file', filename: at('essiv.qcow2') },
    });
    expect(found()).toEqual([
      'key of essiv.luks, digest',
      'key of essiv.luks, end',
      'key of essiv.luks, start',
      'key of essiv.qcow2, digest',
      'key of essiv.qcow2, end',
      'key of essiv.qcow2, start',
      'key of xts.luks, end',
      'key of xts.luks, start',
      'password one',
      'password two',
      'password wrong',
      'the wrapping key, end',
      'the wrapping key, start',
    ]);
  });

  it('nothing is left of what was used, refused or made', async ({ skip }) => {
    skip(!canReadMemory(daemon.pid), 'the system lets nobody look');
    const options = { driver: 'luks', state: 'active', 'new-secret': 'two', 'iter-time': 0 };
    await done('x-blockdev-amend', { 'job-id': 'a', 'node-name': 'xts', options });
    await done('blockdev-backup', {
      'job-id': 'b', device: 'xts', target: 'essiv', sync: 'full',
    });
    await compressedBackup();
    await run('blockdev-reopen', { options: [{
      driver: 'luks', 'node-name': 'essiv', 'key-secret': 'two', 'read-only': true,
      file: { driver: 'file', filename: at('essiv.luks'), 'read-only': true },
    }] } as never);
    await run('blockdev-add', { driver: 'file', 'node-name': 'f', filename: at('new.luks') });
    const create = { driver: 'luks', file: 'f', size: 65_536, 'key-secret': 'one', 'iter-time': 0 };
    await done('blockdev-create', { 'job-id': 'c', options: create });
    // Where a wrong password ends, an id that is taken, and wrapped bytes that are none.
    await run('blockdev-del', { 'node-name': 'essiv' });
    await expect(luks('essiv', 'wrong')).rejects.toThrow('Invalid password');
    await expect(addSecret('one', { file: at('two') })).rejects.toThrow('duplicate');
    const bad = { file: at('wrapped'), format: 'base64', keyid: 'k', iv: 'AAAA' };
    await expect(addSecret('bad', bad)).rejects.toThrow('IV should be');
    for (const name of ['xts', 'inside', 'f']) await run('blockdev-del', { 'node-name': name });
    for (const id of ['one', 'two', 'wrong', 'k']) await run('object-del', { id });
    noteKey('key of new.luks', await keyOf('new.luks'));
    expect(found()).toEqual([]);
  });
});

async function keyOf(name: string): Promise<Uint8Array> {
  const bytes = readFileSync(at(name));
  const header = parseLuksHeader(bytes.subarray(0, 592), { detached: false });
  const one = readFileSync(at('one'));
  const unlocked = await unlockAny({ area: new MemoryArea(bytes), header }, one, deriveKey);
  return unlocked?.masterKey ?? new Uint8Array(0);
}
