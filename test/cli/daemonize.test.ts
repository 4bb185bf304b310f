// SPDX-License-Identifier: Apache-2.0
// --daemonize beside the real program: when the first run ends, how, and what goes on behind it.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { mkdirSync, watch } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import { nativeAddon } from '../../src/host/index.js';
import { complaintsOf } from '../helpers/command-line.js';
import { peer } from '../helpers/peers.js';

const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const PROGRAMS = {
  ours: [process.execPath, MAIN, '--as', 'qemu-storage-daemon', 'storage-daemon'],
  real: [peer('qemu-storage-daemon') ?? ''],
};
type Which = keyof typeof PROGRAMS;
const isAlone = peer('qemu-storage-daemon') === null;
let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-daemonize-'));
  for (const which of Object.keys(PROGRAMS)) mkdirSync(join(folder, which));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function start(which: Which, words: readonly string[]): ReturnType<typeof spawn> {
  const [program = '', ...args] = [...PROGRAMS[which], '--daemonize', ...words];
  const argv0 = which === 'real' ? { argv0: 'qemu-storage-daemon' } : {};
  return spawn(program, args, { cwd: join(folder, which), stdio: 'ignore', ...argv0 });
}

function run(which: Which, words: readonly string[]): object {
  const [program = '', ...args] = [...PROGRAMS[which], '--daemonize', ...words];
  const argv0 = which === 'real' ? { argv0: 'qemu-storage-daemon' } : {};
  const options = { cwd: join(folder, which), encoding: 'utf8', input: '', ...argv0 } as const;
  const { stdout, stderr, status } = spawnSync(program, args, options);
  return { out: stdout.split('\n').length > 1, err: complaintsOf(stderr), status };
}

/** A daemon that connects here, and what its first run has come to by then. */
async function connected(which: Which, words: readonly string[]): Promise<{
  first: ReturnType<typeof spawn>;
  socket: Socket;
}> {
  const server = createServer();
  server.listen(join(folder, which, 'control'));
  await once(server, 'listening');
  const chardev = ['--chardev', 'socket,id=control,path=control', '--monitor', 'control'];
  const first = start(which, [...chardev, ...words]);
  const [socket] = (await once(server, 'connection')) as [Socket];
  server.close();
  return { first, socket };
}

async function statusOf(first: ReturnType<typeof spawn>): Promise<unknown> {
  if (first.exitCode === null) await once(first, 'exit');
  return first.exitCode;
}

/** Until `path` is there, or is gone. */
async function until(path: string, isThere: boolean): Promise<void> {
  const watcher = watch(join(path, '..'));
  try {
    while (existsSync(path) !== isThere) await once(watcher, 'change');
  } finally {
    watcher.close();
  }
}

async function behind(which: Which): Promise<object> {
  const place = join(folder, which);
  const { first, socket } = await connected(which, [
    '--chardev', `socket,id=s,path=${place}/qmp,server=on,wait=off`,
    '--monitor', 's', '--pidfile', 'pid',
  ]);
  const status = await statusOf(first);
  const pid = Number(readFileSync(join(place, 'pid'), 'utf8'));
  const client = await QmpClient.over(socket);
  const again = run(which, ['--pidfile', 'pid']);
  // Where files cannot be locked a second one is up now, and has nobody else to end it.
  const second = Number(readFileSync(join(place, 'pid'), 'utf8'));
  if (second !== pid) process.kill(second, 'SIGKILL');
  const add = { id: 'z', backend: { type: 'stdio', data: {} } } as const;
  const refused = client.execute('chardev-add', add).catch((error: Error) => error.message);
  const relative = client.execute('blockdev-add', {
    driver: 'file', 'node-name': 'f', filename: 'pid',
  });
  const facts = {
    status,
    again,
    isItsOwnLeader: readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[6] === '0',
    stdio: [0, 1, 2].map((each) => readlinkSync(`/proc/${pid}/fd/${each}`)),
    cwd: readlinkSync(`/proc/${pid}/cwd`),
    socketMode: statSync(join(place, 'qmp')).mode & 0o777,
    pidMode: statSync(join(place, 'pid')).mode & 0o777,
    refused: await refused,
    relative: await relative.catch((error: Error) => error.message),
  };
  await client.execute('quit', {});
  await client.close();
  await until(join(place, 'pid'), false);
  return { ...facts, hasSocket: existsSync(join(place, 'qmp')) };
}

it('the daemon behind it is detached, up and locked when the first run ends', async () => {
  const facts = await behind('ours');
  expect(facts).toMatchObject({
    status: 0,
    again: { out: false, status: nativeAddon() === null ? 0 : 1 },
    stdio: ['/dev/null', '/dev/null', '/dev/null'],
    cwd: '/',
    socketMode: 0o750,
    pidMode: 0o600,
    hasSocket: false,
  });
  // Only the addon can lock a file.
  if (!isAlone && nativeAddon() !== null) expect(facts).toEqual(await behind('real'));
});

/** The file of a socket is there a moment before anybody listens. */
async function connectedTo(path: string): Promise<Socket> {
  for (;;) {
    const socket = connect(path);
    const refusal = await once(socket, 'connect').then(
      () => null,
      (error: unknown) => error as NodeJS.ErrnoException,
    );
    if (refusal === null) return socket;
    if (refusal.code !== 'ECONNREFUSED') throw refusal;
  }
}

it('the first run waits for what the daemon waits for', async () => {
  const which = 'ours';
  const waiting = ['--chardev', 'socket,id=w,path=w,server=on', '--monitor', 'w'];
  const { first, socket } = await connected(which, [...waiting, '--pidfile', 'late']);
  await until(join(folder, which, 'w'), true);
  expect([first.exitCode, existsSync(join(folder, which, 'late'))]).toEqual([null, false]);
  // Who is gone cannot be told: the daemon ends, and leaves no pid file.
  first.kill('SIGTERM');
  await once(first, 'exit');
  const other = await connectedTo(join(folder, which, 'w'));
  socket.resume();
  await once(socket, 'close');
  other.destroy();
  await until(join(folder, which, 'late'), false);
  expect(first.signalCode).toBe('SIGTERM');
});

describe.skipIf(isAlone)('beside the real qemu-storage-daemon', () => {
  it.each([
    [['--blockdev', 'driver=file,filename=gone,node-name=x']],
    [['--chardev', 'stdio,id=c', '--monitor', 'c']],
    [['--pidfile', '/gone/pid']],
    [['--chardev', 'help']],
    [['--version']],
    [['-T', 'nosuch', 'extra']],
  ])('ends alike: %s', (words) => {
    expect(run('ours', words)).toEqual(run('real', words));
  });
});
