// SPDX-License-Identifier: Apache-2.0
// Two daemons have one LUKS image open, ours and a real one: whoever wants to change keyslots is
// refused while the other has it open, in the same words, and then not.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { nativeAddon } from '../../src/host/index.js';
import { jobOutcome } from '../helpers/job-outcomes.js';
import { makeLuks } from '../helpers/luks-images.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { hello } from '../helpers/reference.js';
import { command, Conversation } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const program = peer('qemu-storage-daemon');
const LOCKED = 'GenericError: Failed to get shared "consistent read" lock';

const ready = program !== null && nativeAddon() !== null;

describe.skipIf(!ready)('keyslots of an image that two programs have open', () => {
  let folder = '';
  const daemons: AsyncDisposable[] = [];
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'luks-locks-'));
    const { bytes } = await makeLuks(['pw', undefined, 'other', 'third']);
    writeFileSync(join(folder, 'a.luks'), bytes);
  });
  afterEach(async () => {
    for (const daemon of daemons.splice(0)) await daemon[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  async function open(kind: 'ours' | 'theirs'): Promise<Conversation> {
    const daemon = await (kind === 'ours'
      ? startOwnDaemon(folder)
      : startRealDaemon(program ?? '', folder));
    daemons.push(daemon);
    const socket = 'socket' in daemon ? daemon.socket : await daemon.connect();
    const client = new Conversation(socket);
    await client.greeting();
    const secret = { 'qom-type': 'secret', id: 's0', data: 'pw' };
    for (const step of [hello, command('object-add', secret)]) await client.play(step);
    return client;
  }

  const errorOf = async (client: Conversation, execute: string, args: Line): Promise<unknown> =>
    (await client.play(command(execute, args))).find((line) => 'error' in line) ?? null;
  const add = (client: Conversation, more: Line = {}): Promise<unknown> =>
    errorOf(client, 'blockdev-add', {
      driver: 'luks', 'node-name': 'n', 'key-secret': 's0', ...more,
      file: { driver: 'file', filename: join(folder, 'a.luks') },
    });
  const erase = (client: Conversation, keyslot: number): Promise<string> =>
    jobOutcome(client, 'x-blockdev-amend', {
      'node-name': 'n', options: { driver: 'luks', state: 'inactive', keyslot },
    });

  it.each([
    ['ours', 'theirs'],
    ['theirs', 'ours'],
  ] as const)('%s and %s keep each other from changing them', async (first, second) => {
    const [one, other] = [await open(first), await open(second)];
    for (const client of [one, other]) expect(await add(client)).toBeNull();
    expect(await erase(other, 3)).toBe(LOCKED);
    expect(await erase(one, 3)).toBe(LOCKED);
    expect(await errorOf(one, 'blockdev-del', { 'node-name': 'n' })).toBeNull();
    expect(await add(one, { 'read-only': true })).toBeNull();
    expect(await erase(other, 3)).toBe(LOCKED);
    expect(await errorOf(one, 'blockdev-del', { 'node-name': 'n' })).toBeNull();
    expect(await erase(other, 3)).toBe('done, 1 of 1');
    // What the one has erased the other finds erased.
    expect(await add(one)).toBeNull();
    expect(await errorOf(other, 'blockdev-del', { 'node-name': 'n' })).toBeNull();
    expect(await erase(one, 3)).toBe(
      'Given keyslot 3 is already erased (inactive) , 1 of 1',
    );
    expect(await erase(one, 2)).toBe('done, 1 of 1');
  });
});
