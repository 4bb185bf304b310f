// SPDX-License-Identifier: Apache-2.0
// Our storage daemon as a process of its own, to be killed, starved and lied to.
//
// It connects to a socket of ours, so that nothing polls for its readiness; by then every option
// has acted, and `path` takes any number of further clients.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { QmpClient } from '../../src/client/index.js';

const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;

export interface ProgramDaemon extends AsyncDisposable {
  readonly client: QmpClient;
  readonly pid: number;
  /** Unix socket of its other monitor. */
  readonly path: string;
  /** What it said on standard error so far. */
  complaint(): string;
  /** Files that it holds open, by path; sockets, pipes and devices are not among them. */
  openFiles(): string[];
  residentMiB(): number;
  /** Ends it and waits; the status is null after a signal that was not handled. */
  end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null>;
}

export async function startProgramDaemon(
  directory: string,
  args: readonly string[] = [],
): Promise<ProgramDaemon> {
  const ours = join(directory, 'control.sock');
  const path = join(directory, 'monitor.sock');
  for (const stale of [ours, path]) rmSync(stale, { force: true });
  const server = createServer();
  server.listen(ours);
  await once(server, 'listening');
  const chardevs = [
    '--chardev', `socket,id=control,path=${ours},server=off`,
    '--monitor', 'chardev=control',
    '--chardev', `socket,id=many,path=${path},server=on,wait=off`,
    '--monitor', 'chardev=many',
  ];
  const child = spawn(process.execPath, [MAIN, 'storage-daemon', ...chardevs, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString('utf8');
  });
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  const failed = exited.then((code) => {
    throw new Error(`the daemon ended with status ${code}: ${complaint}`);
  });
  failed.catch(() => undefined);
  const [socket] = (await Promise.race([once(server, 'connection'), failed])) as [Socket];
  server.close();
  const client = await QmpClient.over(socket);
  const end = async (signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> => {
    child.kill(signal);
    const status = await exited;
    await client.close();
    return status;
  };
  return {
    client,
    pid: child.pid ?? 0,
    path,
    complaint: () => complaint,
    openFiles: () => filesOf(child.pid ?? 0),
    residentMiB: () => residentOf(child.pid ?? 0),
    end,
    async [Symbol.asyncDispose]() {
      await end('SIGKILL');
    },
  };
}

function filesOf(pid: number): string[] {
  const files: string[] = [];
  for (const entry of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${entry}`);
      if (target.startsWith('/') && !target.startsWith('/dev/')) files.push(target);
    } catch {
      // Closed meanwhile.
    }
  }
  return files.sort();
}

function residentOf(pid: number): number {
  const [, kib = '0'] = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) / 1024;
}
