// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  connectSocket,
  describeAddress,
  listenSocket,
  type SocketAddress,
} from '../../../src/host/index.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-sockets-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function echo(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.pipe(socket);
}

async function answer(address: SocketAddress, text: string): Promise<string> {
  const socket = await connectSocket(address);
  const received = new Promise<string>((resolve) => {
    socket.once('data', (bytes: Buffer) => resolve(bytes.toString()));
  });
  socket.write(text);
  const result = await received;
  socket.destroy();
  return result;
}

describe('a listener', () => {
  it('accepts on a unix path and removes it when it closes', async () => {
    const path = join(folder, 'plain.sock');
    const listener = await listenSocket({ type: 'unix', path }, echo);
    expect(await answer(listener.address, 'hello')).toBe('hello');
    await listener.close();
    await listener.close();
    expect(existsSync(path)).toBe(false);
  });

  it('accepts on TCP and tells the port it was given', async () => {
    const listener = await listenSocket({ type: 'inet', host: '127.0.0.1', port: 0 }, echo);
    expect(listener.address).toMatchObject({ type: 'inet', port: expect.any(Number) });
    expect(describeAddress(listener.address)).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    expect(await answer(listener.address, 'hello')).toBe('hello');
    await listener.close();
  });

  it('ends the connections of silent peers when it closes', async () => {
    const path = join(folder, 'silent.sock');
    const listener = await listenSocket({ type: 'unix', path }, echo);
    const socket = await connectSocket(listener.address);
    const ended = new Promise((resolve) => socket.once('close', resolve));
    socket.resume();
    await answer(listener.address, 'hello');
    expect(listener.connectionCount).toBeGreaterThanOrEqual(1);
    await listener.close();
    await ended;
  });

  it('takes over a socket that nobody answers on', async () => {
    const path = join(folder, 'stale.sock');
    const listen = `require('node:net').createServer().listen(${JSON.stringify(path)}, die)`;
    const script = `const die = () => process.kill(process.pid, 'SIGKILL'); ${listen}`;
    spawnSync(process.execPath, ['-e', script]);
    expect(existsSync(path)).toBe(true);
    const listener = await listenSocket({ type: 'unix', path }, echo);
    expect(await answer(listener.address, 'hello')).toBe('hello');
    await listener.close();
  });

  it('leaves a socket in use and a file that is none alone', async () => {
    const used = { type: 'unix', path: join(folder, 'used.sock') } as const;
    const listener = await listenSocket(used, echo);
    await expect(listenSocket(used, echo)).rejects.toThrow(
      `Failed to listen on '${used.path}': Address already in use`,
    );
    expect(await answer(used, 'still there')).toBe('still there');
    await listener.close();
    const path = join(folder, 'file');
    writeFileSync(path, 'precious');
    await expect(listenSocket({ type: 'unix', path }, echo)).rejects.toThrow('already in use');
    expect(existsSync(path)).toBe(true);
  });

  it('refuses a path that is too long for a unix socket', async () => {
    const path = `/tmp/${'x'.repeat(120)}`;
    await expect(listenSocket({ type: 'unix', path }, echo)).rejects.toThrow('at most 107 bytes');
  });
});

it('connecting to nobody is refused with address and reason', async () => {
  const path = join(folder, 'nobody.sock');
  await expect(connectSocket({ type: 'unix', path })).rejects.toThrow(
    `Failed to connect to '${path}': No such file or directory`,
  );
});
