// SPDX-License-Identifier: Apache-2.0
// What blockdev-create makes of every option of encryption, alone and in qcow2, beside a real
// daemon. Where that one derives keys it takes seconds: such cases are played in campaigns, and
// what either made is opened by the other then.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { jobOutcome } from '../helpers/job-outcomes.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { hasReference, hello } from '../helpers/reference.js';
import { someOf } from '../helpers/seeds.js';
import { command, Conversation } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const MIB = 2 ** 20;

const inQcow2 = (encrypt: unknown, more: Line = {}): Line => ({
  driver: 'qcow2', file: 'f', size: MIB, encrypt, ...more,
});
const quick = { 'key-secret': 's0', 'iter-time': 10 };
const old = (more: Line = {}): Line =>
  inQcow2({ format: 'qcow', 'key-secret': 's0' }, more);
const luks = (members: Line, more: Line = {}): Line =>
  inQcow2({ format: 'luks', ...quick, ...members }, more);
const alone = (more: Line): Line => ({ driver: 'luks', file: 'f', size: MIB, ...quick, ...more });

const REFUSED: readonly Line[] = [
  ...[
    {}, 5, null, { format: 'luks' }, { format: 'bogus' }, { 'key-secret': 's0' },
    { format: 'aes' }, { format: 'qcow' }, { format: 'luks', 'key-secret': 'gone' },
    { format: 'qcow', 'key-secret': 'gone' }, { format: 'qcow', 'key-secret': 't0' },
    { format: 'qcow', 'key-secret': 's0', 'cipher-alg': 'aes-256' },
  ].map((encrypt) => inQcow2(encrypt)),
  ...[
    { 'key-secret': 't0' }, { 'key-secret': 'u' }, { 'cipher-alg': 'x' }, { 'cipher-mode': 'x' },
    { 'ivgen-alg': 'x' }, { 'ivgen-hash-alg': 'x' }, { 'hash-alg': 'x' }, { 'iter-time': 'x' },
    { 'iter-time': 1.5 }, { 'detached-header': true }, { payload: 1 },
    { 'cipher-alg': 'des', 'cipher-mode': 'cbc' }, { 'cipher-alg': '3des', 'cipher-mode': 'cbc' },
    { 'cipher-mode': 'cbc', 'ivgen-alg': 'essiv', 'ivgen-hash-alg': 'sha1' },
    { 'ivgen-alg': 'essiv', 'ivgen-hash-alg': 'sha512' },
  ].map((members) => luks(members)),
  luks({}, { size: 1 }),
  luks({}, { 'data-file': 'gone' }),
  alone({ preallocation: 'x' }),
  alone({ file: 'gone' }),
  alone({ format: 'luks' }),
  alone({ 'key-secret': undefined }),
];

/** What either makes with them opens in the other. */
const MADE: readonly Line[] = [
  ...[{}, { version: 'v2' }, { preallocation: 'metadata' }].map((more) => old(more)),
  ...['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'].map((hash) =>
    luks({ 'hash-alg': hash }),
  ),
  ...[
    { 'cipher-mode': 'cbc', 'ivgen-alg': 'essiv' }, { 'cipher-mode': 'ecb' },
    { 'cipher-mode': 'cbc', 'ivgen-alg': 'essiv', 'ivgen-hash-alg': 'md5' },
    { 'cipher-mode': 'cbc', 'ivgen-alg': 'plain', 'ivgen-hash-alg': 'sha1' },
    { 'ivgen-alg': 'plain' }, { 'ivgen-alg': 'essiv' }, { 'iter-time': 0 },
    { 'ivgen-alg': 'essiv', 'ivgen-hash-alg': 'sha256' }, { 'cipher-alg': 'aes-128' },
    { 'cipher-alg': 'aes-128', 'cipher-mode': 'cbc', 'ivgen-alg': 'essiv', 'hash-alg': 'sha512' },
  ].map((members) => luks(members)),
  ...[
    { 'cluster-size': 512, version: 'v2' }, { 'cluster-size': 4096, version: 'v2' },
    { 'cluster-size': 2 * MIB }, { 'compression-type': 'zstd' }, { 'extended-l2': true },
    { preallocation: 'metadata' }, { 'refcount-bits': 1 }, { 'lazy-refcounts': true }, { size: 0 },
  ].map((more) => luks({}, more)),
  ...[
    {}, { size: 1000 }, { size: 0 }, { preallocation: 'metadata' }, { preallocation: 'falloc' },
    { preallocation: 'full' }, { 'cipher-mode': 'ecb' }, { 'ivgen-alg': 'essiv' },
  ].map((more) => alone(more)),
];

async function stage(socket: Socket, path: string): Promise<Conversation> {
  const conversation = new Conversation(socket);
  await conversation.greeting();
  const secret = (id: string, more: Line): string =>
    command('object-add', { 'qom-type': 'secret', id, ...more });
  for (const step of [
    hello,
    secret('s0', { data: 'pw' }),
    secret('u', { data: '/w==', format: 'base64' }),
    command('object-add', { 'qom-type': 'throttle-group', id: 't0' }),
    command('blockdev-add', { driver: 'file', 'node-name': 'f', filename: path }),
  ]) {
    await conversation.play(step);
  }
  return conversation;
}

/** What a node with that image says of its size. */
async function opened(conversation: Conversation, options: Line, path: string): Promise<unknown> {
  const { driver, encrypt } = options;
  const format = (encrypt as Line | undefined)?.['format'] === 'qcow' ? 'aes' : 'luks';
  const key = { 'key-secret': 's0' };
  const file = { driver: 'file', filename: path };
  const open = { driver, 'node-name': 'n', 'read-only': true, file };
  const added = driver === 'luks' ? { ...open, ...key } : { ...open, encrypt: { format, ...key } };
  const [answer] = await conversation.play(command('blockdev-add', added));
  const [nodes] = await conversation.ask(command('query-named-block-nodes', { flat: true }));
  const list = (nodes?.['return'] ?? []) as readonly Line[];
  const node = list.find((each) => each['node-name'] === 'n');
  await conversation.play(command('blockdev-del', { 'node-name': 'n' }));
  return [answer, (node?.['image'] as Line | undefined)?.['virtual-size']];
}

async function inBoth(
  act: (own: Conversation, real: Conversation, paths: [string, string]) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'encryption-create-'));
  try {
    const paths: [string, string] = [join(directory, 'ours'), join(directory, 'theirs')];
    for (const path of paths) writeFileSync(path, '');
    await using real = await startRealDaemon(peer('qemu-storage-daemon') as string, directory);
    await using own = await startOwnDaemon(directory);
    const ours = await stage(await own.connect(), paths[0]);
    await act(ours, await stage(real.socket, paths[1]), paths);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

describe.skipIf(!hasReference)('encrypted images as blockdev-create makes them', () => {
  it('what cannot be made is refused, or fails its job, in the same words', () =>
    inBoth(async (own, real) => {
      for (const options of someOf(REFUSED, 4)) {
        const theirs = await jobOutcome(real, 'blockdev-create', { options });
        const ours = await jobOutcome(own, 'blockdev-create', { options });
        expect(ours, JSON.stringify(options)).toBe(theirs);
        expect(theirs).not.toContain('done');
      }
    }));

  it.each(isCampaign ? MADE : MADE.slice(0, 2))('%o opens in both', (options) =>
    inBoth(async (own, real, [mine, its]) => {
      for (const each of [own, real]) {
        expect(await jobOutcome(each, 'blockdev-create', { options })).toBe('done, 1 of 1');
        await each.play(command('blockdev-del', { 'node-name': 'f' }));
      }
      for (const path of [mine, its]) {
        const theirs = await opened(real, options, path);
        expect(await opened(own, options, path)).toEqual(theirs);
        expect(theirs).toEqual([{ return: {} }, Math.ceil(Number(options['size']) / 512) * 512]);
      }
    }));
});
