// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import { runStorageDaemon } from '../../../src/cli/storage-daemon/index.js';
import { PidFile } from '../../../src/cli/storage-daemon/pidfile.js';
import { QmpClient } from '../../../src/client/index.js';
import { Engine } from '../../../src/engine/index.js';
import { listenSocket, MemoryHost } from '../../../src/host/index.js';
import { serve } from '../../../src/index.js';

it('a daemon that cannot close its images says so and leaves no socket or pid file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'blockwright-close-'));
  const [control, own, pidFile] = ['control', 'own', 'pid'].map((name) => join(folder, name));
  const complaints: string[] = [];
  const program = {
    name: 'daemon',
    out: () => undefined,
    err: (text: string) => void complaints.push(text),
    terminal: false,
  };
  const failure = new BlockError('no-space', 'No space left on device');
  const close = vi.spyOn(Engine.prototype, 'close').mockRejectedValue(failure);
  try {
    let connected: (client: Promise<QmpClient>) => void = () => undefined;
    const client = new Promise<QmpClient>((resolve) => {
      connected = resolve;
    });
    const listener = await listenSocket({ type: 'unix', path: control ?? '' }, (socket) =>
      connected(QmpClient.over(socket)),
    );
    const ended = runStorageDaemon(
      [
        '--chardev', `socket,id=a,path=${own},server=on,wait=off`,
        '--chardev', `socket,id=b,path=${control}`, '--monitor', 'b',
        '--pidfile', pidFile ?? '',
      ],
      program,
    );
    await (await client).execute('quit');
    expect(await ended).toBe(1);
    expect(complaints.filter((text) => !text.includes('not locked'))).toEqual([
      'daemon: No space left on device\n',
    ]);
    expect([own, pidFile].map((path) => existsSync(path ?? ''))).toEqual([false, false]);
    await listener.close();
  } finally {
    close.mockRestore();
    rmSync(folder, { recursive: true, force: true });
  }
});

it('a server whose engine cannot be closed stops listening all the same', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'blockwright-close-'));
  const path = join(folder, 'socket');
  const served = await serve({ type: 'unix', path });
  const failure = new BlockError('no-space', 'No space left on device');
  const close = vi.spyOn(Engine.prototype, 'close').mockRejectedValue(failure);
  try {
    await expect(served[Symbol.asyncDispose]()).rejects.toBe(failure);
    expect(existsSync(path)).toBe(false);
  } finally {
    close.mockRestore();
    await served.engine.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

it('a pid file that cannot be written is not left behind', async () => {
  const host = new MemoryHost();
  host.faults.add({ operation: 'write', nth: 1, errno: 'ENOSPC' });
  await expect(PidFile.write(host, '/pid')).rejects.toThrow('cannot create PID file: ');
  expect(host.paths()).toEqual([]);
  const again = await PidFile.write(host, '/pid');
  await again.remove();
});
