// SPDX-License-Identifier: Apache-2.0
// SIGKILL of our daemon while a stream or a backup runs, and the moment it is reported concluded:
// the real qemu-img finds images clean but for leaks, and no byte of the guest's view lost.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, watch } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { peer } from '../helpers/peers.js';

const qemuImg = peer('qemu-img') ?? '';
const qemuIo = peer('qemu-io') ?? '';
const program = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const ready = qemuImg !== '' && qemuIo !== '' && existsSync(program);

interface Message {
  readonly event?: string;
  readonly data?: { readonly status?: string; readonly offset?: number };
  readonly return?: unknown;
  readonly error?: unknown;
  readonly QMP?: unknown;
}

/** Sends commands one after another, and calls `seen` for every message that comes. */
class Session {
  readonly #socket: Socket;
  #text = '';
  #waiting: ((message: Message) => void) | null = null;

  constructor(socket: Socket, seen: (message: Message) => void) {
    this.#socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      this.#text += chunk.toString();
      const lines = this.#text.split('\n');
      this.#text = lines.pop() ?? '';
      for (const line of lines.filter((each) => each.trim() !== '')) {
        const message = JSON.parse(line) as Message;
        seen(message);
        if (message.event === undefined && message.QMP === undefined) this.#waiting?.(message);
      }
    });
  }

  command(execute: string, args: object = {}): Promise<Message> {
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    });
  }
}

describe.skipIf(!ready)('SIGKILL', () => {
  let folder = '';
  let daemon: ChildProcess | null = null;
  const img = (...args: string[]): string =>
    execFileSync(qemuImg, args, { cwd: folder, encoding: 'utf8' });
  const io = (file: string, ...commands: string[]): void =>
    void execFileSync(qemuIo, ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), file], {
      cwd: folder,
    });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'kill-'));
    img('create', '-q', '-f', 'qcow2', 'base.qcow2', '64M');
    io('base.qcow2', 'write -P 1 0 40M');
    img('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'mid.qcow2');
    io('mid.qcow2', 'write -P 2 10M 20M', 'write -z 31M 1M');
    img('create', '-q', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', 'top.qcow2');
    io('top.qcow2', 'write -P 3 15M 1M');
    img('create', '-q', '-f', 'qcow2', 'copy.qcow2', '64M');
    img('convert', '-O', 'raw', 'top.qcow2', 'view.raw');
  });
  afterEach(() => {
    daemon?.kill('SIGKILL');
    daemon = null;
    rmSync(folder, { recursive: true, force: true });
  });

  /** The pid file appears when the daemon answers. */
  async function start(seen: (message: Message) => void): Promise<Session> {
    const nodes = ['base', 'mid', 'top', 'copy'].flatMap((name) => [
      '--blockdev',
      `driver=qcow2,node-name=${name},file.driver=file,file.filename=${name}.qcow2` +
        { base: '', mid: ',backing=base', top: ',backing=mid', copy: '' }[name],
    ]);
    const args = ['storage-daemon', '--chardev', 'socket,path=qmp,server=on,wait=off,id=c'];
    const pidfile = ['--pidfile', 'pid'];
    const changes = watch(folder);
    daemon = spawn(process.execPath, [program, ...args, ...nodes, '--monitor', 'c', ...pidfile], {
      cwd: folder,
      stdio: 'ignore',
    });
    const died = once(daemon, 'exit').then(() => expect.fail('the daemon ended at its start'));
    died.catch(() => undefined);
    while (!existsSync(join(folder, 'pid'))) await Promise.race([once(changes, 'change'), died]);
    changes.close();
    const session = new Session(connect(join(folder, 'qmp')), seen);
    expect(await session.command('qmp_capabilities')).toEqual({ return: {} });
    return session;
  }

  /** Runs the command and kills the daemon when `now` says so; waits for its end. */
  async function killWhen(
    command: readonly [string, object],
    now: (message: Message) => boolean,
  ): Promise<void> {
    let tellDeath = (): void => undefined;
    const dead = new Promise<void>((resolve) => {
      tellDeath = resolve;
    });
    const session = await start((message) => {
      if (now(message)) daemon?.kill('SIGKILL');
    });
    daemon?.on('exit', () => tellDeath());
    await Promise.race([session.command(...command), dead]);
    await dead;
  }

  const concluded = ({ data }: Message): boolean => data?.status === 'concluded';

  function expectView(file: string): void {
    // 3 = leaked clusters only, 0 = clean.
    const check = spawnSync(qemuImg, ['check', file], { cwd: folder });
    expect([0, 3]).toContain(check.status);
    expect(img('compare', 'view.raw', file)).toContain('Images are identical');
  }

  for (let round = 0; round < 3; round += 1) {
    it(`at the end of a stream loses nothing (${round})`, async () => {
      await killWhen(['block-stream', { 'job-id': 's', device: 'top' }], concluded);
      expectView('top.qcow2');
      expect(img('info', 'top.qcow2')).not.toContain('backing file');
    });

    it(`at the end of a backup leaves a complete target (${round})`, async () => {
      const args = { 'job-id': 'b', device: 'top', target: 'copy', sync: 'full' };
      await killWhen(['blockdev-backup', args], concluded);
      expectView('copy.qcow2');
    });
  }

  for (const status of ['running', 'waiting', 'pending']) {
    it(`of a stream that is ${status} leaves the view as it was`, async () => {
      await killWhen(
        ['block-stream', { 'job-id': 's', device: 'top', 'base-node': 'base' }],
        ({ data }) => data?.status === status,
      );
      expectView('top.qcow2');
    });
  }
});
