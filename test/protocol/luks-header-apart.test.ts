// SPDX-License-Identifier: Apache-2.0
// Keyslots of a header that lies apart, changed over QMP, which the reference cannot do: cryptsetup
// says what has become of them. Others are kept from the header meanwhile, not from the payload.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { jobOutcome } from '../helpers/job-outcomes.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import type { OwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { hello } from '../helpers/reference.js';
import { command, Conversation } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const cryptsetup = peer('cryptsetup');
const PASSWORDS = ['first', 'second', 'third'] as const;
const PAYLOAD = 65_536;

describe.skipIf(cryptsetup === null)('a header apart, over QMP', () => {
  let folder = '';
  let daemon: OwnDaemon;
  let client: Conversation;
  const path = (name: string): string => join(folder, name);
  const errorOf = async (execute: string, args: Line): Promise<unknown> => {
    const said = await client.play(command(execute, args));
    return said.find((line) => 'error' in line)?.['error'] ?? null;
  };
  const amend = (members: Line, node = 'l', force = false): Promise<string> => {
    const options = { driver: 'luks', ...members };
    return jobOutcome(client, 'x-blockdev-amend', { 'node-name': node, options, force });
  };
  const opens = (word: string): boolean => {
    const words = ['luksOpen', '--test-passphrase', '-q', '--header', 'head', '-d', word, 'data'];
    return spawnSync(cryptsetup ?? '', words, { cwd: folder }).status === 0;
  };
  const volume = (name: string): Line => ({
    driver: 'luks', 'node-name': name, 'key-secret': 'first', file: 'data', header: 'head',
  });

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'header-apart-'));
    for (const word of PASSWORDS) writeFileSync(path(word), word);
    writeFileSync(path('data'), new Uint8Array(PAYLOAD).fill(9));
    writeFileSync(path('head'), '');
    truncateSync(path('head'), 2 ** 21);
    const args = [
      'luksFormat', '-q', '--type', 'luks1', '--pbkdf-force-iterations', '1000',
      '--header', 'head', '-d', 'first', 'data',
    ];
    execFileSync(cryptsetup ?? '', args, { cwd: folder });
    daemon = await startOwnDaemon(folder);
    client = new Conversation(await daemon.connect());
    await client.greeting();
    await client.play(hello);
    for (const word of PASSWORDS) {
      const secret = { 'qom-type': 'secret', id: word, data: word };
      await client.play(command('object-add', secret));
    }
    for (const name of ['data', 'head']) {
      const file = { driver: 'file', 'node-name': name, filename: path(name) };
      expect(await errorOf('blockdev-add', file)).toBeNull();
    }
    expect(await errorOf('blockdev-add', volume('l'))).toBeNull();
  });
  afterEach(async () => {
    await daemon[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  it('takes passwords in, gives them up, and keeps its last one', async () => {
    const added = { state: 'active', 'iter-time': 0 };
    expect(await amend({ ...added, 'new-secret': 'second', keyslot: 6 })).toBe('done, 1 of 1');
    expect(PASSWORDS.map(opens)).toEqual([true, true, false]);
    expect(await amend({ state: 'inactive', 'old-secret': 'first' })).toBe('done, 1 of 1');
    expect(PASSWORDS.map(opens)).toEqual([false, true, false]);
    const lost = await amend({ state: 'inactive', keyslot: 6 });
    expect(lost).toContain('Attempt to erase the only active keyslot 6');
    const unopened = await amend({ ...added, 'new-secret': 'third' });
    expect(unopened).toContain('Invalid password, cannot unlock any keyslot');
    const byAnother = { ...added, 'new-secret': 'third', secret: 'second' };
    expect(await amend(byAnother)).toBe('done, 1 of 1');
    expect(PASSWORDS.map(opens)).toEqual([false, true, true]);
    expect(readFileSync(path('data')).every((byte) => byte === 9)).toBe(true);
  });

  it('is kept from others while it changes, and its payload is not', async () => {
    const erase = { state: 'inactive', keyslot: 0 };
    const raw = (name: string, file: string): Line => ({ driver: 'raw', 'node-name': name, file });
    expect(await errorOf('blockdev-add', raw('d', 'data'))).toBeNull();
    expect(await amend(erase)).toContain('the only active keyslot 0');
    expect(await errorOf('blockdev-add', volume('m'))).toBeNull();
    const refused =
      "GenericError: Permission conflict on node 'head': permissions 'write' are both " +
      "required by node 'l' (uses node 'head' as 'header' child) and unshared by node 'm' (uses " +
      "node 'head' as 'header' child).";
    expect(await amend(erase)).toBe(refused);
    expect(await errorOf('blockdev-del', { 'node-name': 'm' })).toBeNull();
    expect(await amend(erase, 'l', true)).toBe('done, 1 of 1');
    expect(PASSWORDS.map(opens)).toEqual([false, false, false]);
    expect(await errorOf('blockdev-add', volume('m'))).toMatchObject({
      desc: 'Invalid password, cannot unlock any keyslot',
    });
  });
});
