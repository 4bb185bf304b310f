// SPDX-License-Identifier: Apache-2.0
// A real qemu-storage-daemon with its monitor on a socket.
//
// The daemon connects to a socket of ours, so that nothing has to poll for its readiness.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';

export interface RealDaemon extends AsyncDisposable {
  /** The monitor's connection, greeting not yet read. */
  readonly socket: Socket;
  readonly pid: number;
  /** Exit status, once it ended by itself. */
  readonly exited: Promise<number | null>;
}

export function startRealDaemon(
  program: string,
  directory: string,
  args: readonly string[] = [],
): Promise<RealDaemon> {
  return start(program, directory, ['--monitor', 'chardev=monitor', ...args]);
}

/** A whole emulator without a machine: the block layer of the daemon, and much more in its QMP. */
export function startRealQemu(program: string, directory: string): Promise<RealDaemon> {
  const machine = ['-machine', 'none', '-nodefaults', '-display', 'none'];
  return start(program, directory, [...machine, '-mon', 'chardev=monitor,mode=control']);
}

async function start(
  program: string,
  directory: string,
  args: readonly string[],
): Promise<RealDaemon> {
  const path = join(directory, 'real-monitor.sock');
  await rm(path, { force: true });
  const server = createServer();
  server.listen(path);
  await once(server, 'listening');
  const chardev = `socket,id=monitor,path=${path},server=off`;
  const child = spawn(program, ['--chardev', chardev, ...args], {
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  const failed = exited.then((code) => {
    throw new Error(`${program} ended with status ${code} before it connected`);
  });
  failed.catch(() => undefined);
  const [socket] = (await Promise.race([once(server, 'connection'), failed])) as [Socket];
  socket.on('error', () => undefined);
  server.close();
  return {
    socket,
    pid: child.pid ?? 0,
    exited,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
      socket.destroy();
    },
  };
}
