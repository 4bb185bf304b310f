// SPDX-License-Identifier: Apache-2.0
// Standard streams whose other end has gone away: the work is done all the same.
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import { listenSocket } from '../../src/host/index.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-streams-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The program with every standard stream a pipe. */
function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [PROGRAM, ...args], { stdio: 'pipe' });
}

it('an image is written to its end though nobody reads the progress', async () => {
  const source = join(folder, 'source.raw');
  const target = join(folder, 'target.raw');
  const bytes = Buffer.alloc(4 << 20, 'progress');
  writeFileSync(source, bytes);
  const child = start(['img', 'convert', '-p', '-O', 'raw', source, target]);
  child.stdout?.destroy();
  child.stderr?.destroy();
  expect(await once(child, 'exit')).toEqual([0, null]);
  expect(readFileSync(target).equals(bytes)).toBe(true);
});

it('a refusal that nobody reads keeps its exit status', async () => {
  const child = start(['img', 'info', join(folder, 'gone')]);
  child.stdout?.destroy();
  child.stderr?.destroy();
  expect(await once(child, 'exit')).toEqual([1, null]);
});

it('output that could not be stored shows in the exit status', () => {
  const full = openSync('/dev/full', 'w');
  const { status } = spawnSync(process.execPath, [PROGRAM, '--help'], {
    stdio: ['ignore', full, 'ignore'],
  });
  closeSync(full);
  expect(status).toBe(1);
});

it('a daemon serves its other clients when the one on standard output has gone', async () => {
  let connected: (client: Promise<QmpClient>) => void = () => undefined;
  const other = new Promise<QmpClient>((resolve) => {
    connected = resolve;
  });
  const path = join(folder, 'other.sock');
  const listener = await listenSocket({ type: 'unix', path }, (socket) =>
    connected(QmpClient.over(socket)),
  );
  const child = start([
    'storage-daemon',
    '--chardev', 'stdio,id=std', '--monitor', 'std',
    '--chardev', `socket,id=sock,path=${path}`, '--monitor', 'sock',
  ]);
  const ended = once(child, 'exit');
  const client = await other;
  child.stdout?.destroy();
  await once(child.stdout ?? child, 'close');
  child.stdin?.on('error', () => undefined);
  // Each answer to it fails to be written.
  for (let turn = 0; turn < 3; turn += 1) {
    child.stdin?.write('{"execute":"query-version"}');
    expect(await client.execute('query-jobs')).toEqual([]);
  }
  await client.execute('quit');
  expect(await ended).toEqual([0, null]);
  await client.close();
  await listener.close();
});
