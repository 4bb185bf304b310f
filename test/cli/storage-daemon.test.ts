// SPDX-License-Identifier: Apache-2.0
// The daemon's command line: what it refuses, and what is left when it is told to end.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { complaintsOf } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { peer } from '../helpers/peers.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const real = peer('qemu-storage-daemon');
const server = new CommandServer();
let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-daemon-'));
  writeFileSync(join(folder, 'events'), 'one\n# two\n\n-three\nfour*\n');
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

function refusal(words: readonly string[]): { err: string; status: number | null } {
  const [program = '', ...args] = words;
  const options = { cwd: folder, encoding: 'utf8', argv0: 'qemu-storage-daemon' } as const;
  const { stderr, status } = spawnSync(program, args, options);
  return { err: complaintsOf(stderr), status };
}

function ownRefusal(args: readonly string[]): { err: string; status: number | null } {
  const words = ['--as', 'qemu-storage-daemon', 'storage-daemon', ...args];
  const { err, status } = server.run(folder, words);
  return { err, status };
}

function ours(args: readonly string[]): readonly string[] {
  return [process.execPath, PROGRAM, '--as', 'qemu-storage-daemon', 'storage-daemon', ...args];
}

const REFUSED: readonly (readonly string[])[] = [
  ['--foo'],
  ['extra'],
  ['--blockdev'],
  ['--blockdev', 'foo'],
  ['--blockdev', 'driver=null-co'],
  ['--blockdev', 'driver=null-co,node-name=x,foo=1'],
  ['--blockdev', '{"driver":"null-co","node-name":1}'],
  ['--blockdev', 'driver=file,filename=gone,node-name=f'],
  ['--object', 'throttle-group'],
  ['--object', 'nope,id=g'],
  ['--object', 'throttle-group,id=g,x-bps-total=1M'],
  ['--object', 'throttle-group,id=g,limits.bps-total=1,limits.bps-read=1'],
  ['--monitor', 'foo'],
  ['--chardev', 'foo,id=c'],
  ['--chardev', 'socket,path=s'],
  ['--chardev', 'socket,id=c,path=s,foo=on'],
  ['--chardev', 'socket,id=c,path=s,server=maybe'],
  ['--chardev', 'socket,id=c,path=/gone/s,server=on,wait=off'],
  ['--chardev', 'null'],
  ['--chardev', 'id=x'],
  ['--chardev', 'file,id=x'],
  ['--chardev', 'file,id=x,path=/gone/x'],
  ['--chardev', 'file,id=x,path=said,append=maybe'],
  ['--chardev', 'pipe,id=x'],
  ['--chardev', 'pipe,id=x,path=/gone/p'],
  ['--chardev', 'ringbuf,id=x,size=3'],
  ['--chardev', 'spicevmc,id=x'],
  ['--chardev', 'socket,id=x,path=s,server=on,wait=off,reconnect=1'],
  ['--chardev', 'socket,id=x,path=s,reconnect=1,wait=on'],
  ['--chardev', 'socket,id=x,path=gone'],
  ['--chardev', 'socket,id=x,host=127.0.0.1,server=on,wait=off'],
  ['--chardev', 'socket,id=x,host=127.0.0.1,port=zz,server=on,wait=off'],
  ['--chardev', 'null,id=x', '--chardev', 'null,id=x'],
  ['--chardev', 'null,id=x', '--monitor', 'x', '--monitor', 'x'],
  ['--chardev', 'null,id=x', '--monitor', 'nope'],
  ['--chardev', 'null,id=x', '--monitor', 'chardev=x,mode=readline'],
  ['--object', 'iothread,id=i,poll-max-ns=-1'],
  ['--object', 'iothread,id=i,thread-pool-max=0'],
  ['--object', 'main-loop,id=i', '--object', 'main-loop,id=j'],
  ['--pidfile', '/gone/pid'],
  ['-x'],
  ['-T'],
  ['--pid'],
  ['--vers=1'],
  ['--o', 'x'],
  ['--daemonize=on'],
  ['--b=foo'],
  ['--blockdev', 'foo', '--foo'],
  ['--blockdev', 'foo', 'extra'],
  ['extra', '--blockdev', 'foo'],
  ['--blockdev', 'foo', '-T', 'nosuch'],
  ['-Tnosuch', '--blockdev', 'foo'],
  ['-T', 'enable=nosuch', '--trace', '-bar', '--blockdev', 'foo'],
  ['-T', 'nosuch,events=/gone', '--blockdev', 'foo'],
  ['-T', 'events=events', '--blockdev', 'foo'],
  ['-T', 'nosuch*', '--blockdev', 'foo'],
  ['-T', 'foo=x', '--blockdev', 'foo'],
  ['-T', 'file=/gone/log', '--blockdev', 'foo'],
  ['-T', 'file=log', '--blockdev', 'foo'],
];

describe.skipIf(real === null)('beside the real qemu-storage-daemon', () => {
  it.each(REFUSED)('refuses alike: %s %s', (...args) => {
    expect(ownRefusal(args)).toEqual(refusal([real ?? '', ...args]));
  });
});

it.skipIf(real === null)('lists the properties of an object alike, and what there is', () => {
  const ownListing = (...args: readonly string[]): string =>
    server.run(folder, ['storage-daemon', ...args]).out;
  for (const type of ['throttle-group', 'iothread']) {
    const theirs = execFileSync(real ?? '', ['--object', `${type},help`]).toString();
    expect(ownListing('--object', `${type},help`)).toBe(theirs);
  }
  expect(ownListing('--object', 'help')).toContain('\n  iothread\n');
  expect(ownListing('--chardev', 'help')).toContain('\n  ringbuf\n');
});

it.skipIf(real === null)('help comes before mistakes that follow it, a listing last', () => {
  const lines = [
    ['extra', '--version', '--foo'],
    ['--blockdev', 'foo', '--help'],
    ['-T', 'nosuch,help'],
    ['-T', 'help', '--blockdev', 'foo'],
    ['--object', 'help', '--foo'],
    ['--chardev', 'help', '--daemonize', '--nope'],
  ];
  for (const words of lines) {
    expect({ words, ...ownRefusal(words) }).toEqual({ words, ...refusal([real ?? '', ...words]) });
  }
});

it.each(['--export', '--nbd-server'])('refuses %s by name', (option) => {
  expect(refusal(ours([option, 'x']))).toEqual({
    err: `qemu-storage-daemon: option '${option}' is not supported\n`,
    status: 1,
  });
});

async function pidFileOf(daemon: ChildProcess, path: string): Promise<void> {
  const watcher = watch(folder);
  try {
    while (!existsSync(path) || readFileSync(path, 'utf8') === '') {
      if (daemon.exitCode !== null) throw new Error('the daemon has ended');
      await once(watcher, 'change');
    }
  } finally {
    watcher.close();
  }
}

it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s ends it cleanly', async (signal) => {
  const [socket, pidFile] = [join(folder, 's.sock'), join(folder, 'pid')];
  const chardev = ['--chardev', `socket,id=c,path=${socket},server=on,wait=off`];
  const [program = '', ...args] = ours([...chardev, '--monitor', 'c', '--pidfile', pidFile]);
  const daemon = spawn(program, args, { stdio: 'ignore' });
  await pidFileOf(daemon, pidFile);
  expect(readFileSync(pidFile, 'utf8')).toBe(`${daemon.pid}\n`);
  expect(statSync(pidFile).mode & 0o777).toBe(0o600);
  expect(existsSync(socket)).toBe(true);
  daemon.kill(signal);
  const [status] = (await once(daemon, 'exit')) as [number | null];
  expect(status).toBe(0);
  expect([existsSync(socket), existsSync(pidFile)]).toEqual([false, false]);
});

it('a signal that comes after quit changes nothing', async () => {
  const args = ['--chardev', 'stdio,id=c', '--monitor', 'c'];
  const [program = '', ...words] = ours(args);
  const daemon = spawn(program, words, { stdio: ['pipe', 'pipe', 'ignore'] });
  daemon.stdin.write('{"execute":"qmp_capabilities"}{"execute":"quit"}');
  let said = '';
  for await (const chunk of daemon.stdout) {
    said += String(chunk);
    if (said.includes('{"return": {}}\r\n{"return": {}}')) daemon.kill('SIGTERM');
  }
  if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, 'exit');
  expect([daemon.exitCode, daemon.signalCode]).toEqual([0, null]);
});
