// SPDX-License-Identifier: Apache-2.0
// How files are open and which bytes are locked, after every command of a sequence: the same in a
// real daemon and in ours. Refused commands leave nothing behind.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { nativeAddon } from '../../src/host/index.js';
import { heldFiles } from '../helpers/held-files.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { command, Conversation } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const daemon = peer('qemu-storage-daemon');
const img = peer('qemu-img');
const io = peer('qemu-io');
const ready = daemon !== null && img !== null && io !== null && nativeAddon() !== null;

interface Played {
  readonly step: Step;
  readonly answers: readonly Line[];
  readonly held: readonly string[];
}

const add = (options: Line): string => command('blockdev-add', options);
const del = (name: string): string => command('blockdev-del', { 'node-name': name });

describe.skipIf(!ready)('files in use', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'held-files-'));
    const create = (...args: string[]): void => {
      execFileSync(img ?? '', ['create', '-q', '-f', ...args]);
    };
    create('qcow2', path('base'), '1M');
    create('qcow2', '-b', path('base'), '-F', 'qcow2', path('top'));
    create('raw', path('raw'), '1M');
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  const path = (name: string): string => join(directory, name);
  const file = (name: string, extra: Line = {}): Line => ({
    driver: 'file',
    filename: path(name),
    ...extra,
  });

  /** What is answered and what is held, step by step, waiting for what is wanted. */
  async function played(
    { conversation, pid }: { readonly conversation: Conversation; readonly pid: number },
    steps: readonly Step[],
    wanted: readonly Played[] = [],
  ): Promise<Played[]> {
    await conversation.greeting();
    const record: Played[] = [];
    for (const step of [command('qmp_capabilities'), ...steps]) {
      const said = await conversation.play(step);
      const answers = said.filter((line) => line['event'] === undefined);
      const held = await settled(pid, wanted[record.length]?.held ?? null);
      record.push({ step, answers, held });
    }
    return record;
  }

  /** A former opening of a file is closed soon after the command. */
  async function settled(pid: number, wanted: readonly string[] | null): Promise<string[]> {
    let held = heldFiles(pid, directory);
    const isSettled = (): boolean =>
      wanted === null
        ? new Set(held.map(nameOf)).size === held.length
        : isDeepStrictEqual(held, wanted);
    for (let turn = 0; turn < (wanted === null ? 50 : 2000) && !isSettled(); turn += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      held = heldFiles(pid, directory);
    }
    return held;
  }

  async function compareHeld(steps: readonly Step[]): Promise<void> {
    const theirs = await (async () => {
      await using real = await startRealDaemon(daemon ?? '', directory);
      const conversation = new Conversation(real.socket);
      return await played({ conversation, pid: real.pid }, steps);
    })();
    await using own = await startOwnDaemon(directory);
    const conversation = new Conversation(await own.connect());
    const ours = await played({ conversation, pid: process.pid }, steps, theirs);
    expect(ours).toEqual(theirs);
  }

  it('auto-read-only opens a file for writing with its first writer, until the last', () =>
    compareHeld([
      add({ ...file('raw'), 'node-name': 'f', 'auto-read-only': true }),
      add({ driver: 'raw', 'node-name': 'reader', 'read-only': true, file: 'f' }),
      add({ driver: 'raw', 'node-name': 'r', file: 'f' }),
      add({ driver: 'blkdebug', 'node-name': 'w', image: 'r', 'take-child-perms': ['write'] }),
      add({
        driver: 'blkdebug',
        'node-name': 'x',
        image: 'r',
        'take-child-perms': ['consistent-read', 'resize'],
      }),
      del('w'),
      del('x'),
      del('r'),
      del('reader'),
      del('f'),
    ]));

  it('is inherited by the file of an image, and not by its backing file', () => {
    const image = { driver: 'qcow2', 'node-name': 'q', file: file('top'), 'auto-read-only': true };
    return compareHeld([
      add(image),
      command('blockdev-reopen', { options: [{ ...image, 'read-only': true, backing: 'b' }] }),
      del('q'),
      add({ ...image, backing: { driver: 'qcow2', 'node-name': 'b', file: file('base') } }),
      command('blockdev-reopen', { options: [{ ...image, 'read-only': true, backing: 'b' }] }),
      command('blockdev-reopen', { options: [{ ...image, backing: 'b' }] }),
      del('q'),
    ]);
  });

  it('force-share asks nothing of others, of this process too', () =>
    compareHeld([
      add({ driver: 'qcow2', 'node-name': 'w', file: file('top') }),
      add({ driver: 'qcow2', 'node-name': 'r', 'read-only': true, file: file('top') }),
      add({ driver: 'qcow2', 'node-name': 'w2', file: file('top') }),
      add({ driver: 'qcow2', 'node-name': 's', 'force-share': true, file: file('top') }),
      add({
        driver: 'qcow2',
        'node-name': 's',
        'force-share': true,
        'read-only': true,
        file: file('top'),
      }),
      del('w'),
      add({ driver: 'qcow2', 'node-name': 'w2', file: file('top') }),
      del('s'),
      del('w2'),
    ]));

  it('refused commands leave neither a file nor a lock behind', () =>
    compareHeld([
      add({ driver: 'qcow2', 'node-name': 'q', file: file('top', { 'read-only': true }) }),
      add({ driver: 'qcow2', 'node-name': '1', file: file('top') }),
      add({ driver: 'raw', 'node-name': 'r', file: file('raw'), offset: 100 }),
      add({ driver: 'qcow2', 'node-name': 'q', file: file('top'), backing: 'nowhere' }),
      add({ driver: 'qcow2', 'node-name': 'q', file: file('top'), backing: null }),
      add({ driver: 'raw', 'node-name': 'r', file: file('top') }),
      add({
        driver: 'blkdebug',
        'node-name': 'd',
        image: 'q',
        'take-child-perms': ['write'],
        'unshare-child-perms': ['write'],
      }),
      add({ driver: 'blkdebug', 'node-name': 'e', image: 'q', 'take-child-perms': ['write'] }),
      command('blockdev-reopen', {
        options: [
          {
            driver: 'qcow2',
            'node-name': 'q',
            file: file('top'),
            'read-only': true,
            backing: null,
          },
        ],
      }),
      del('q'),
      del('d'),
      del('q'),
    ]));

  it('a refusal names who holds the file: a process, or a node of the same', async () => {
    await using own = await startOwnDaemon(directory);
    const { graph } = own.engine;
    const holder = spawn(io ?? '', ['-f', 'qcow2', path('top')], { stdio: 'pipe' });
    const options = { driver: 'qcow2', file: file('top'), backing: null };
    try {
      holder.stdin.write('length\n');
      await once(holder.stdout, 'data');
      await expect(graph.open(options)).rejects.toMatchObject({
        message: 'Failed to get "write" lock',
        context: { holder: `process ${holder.pid} (qemu-io)` },
      });
      expect(heldFiles(process.pid, directory)).toEqual([]);
    } finally {
      holder.stdin.end('quit\n');
      await once(holder, 'exit');
    }
    await graph.open({ ...options, file: file('top', { 'node-name': 'here' }) });
    await expect(graph.open(options)).rejects.toMatchObject({
      message: 'Failed to get "write" lock',
      context: { holder: "node 'here'" },
    });
    const outside = spawnSync(img ?? '', ['info', path('top')], { encoding: 'utf8' });
    expect(outside.stderr).toContain('Failed to get shared "write" lock');
  });
});

function nameOf(held: string): string {
  return held.split(' ')[0] ?? '';
}
