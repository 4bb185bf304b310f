// SPDX-License-Identifier: Apache-2.0
// --daemonize: the program that was started ends when the daemon is ready, or with its mistakes.
//
// Node cannot fork, so the daemon is a second run of the program with the same words, in a session
// of its own and with nothing on its standard streams. What it has to say before it is ready goes
// through a pipe to the first run, which prints it and ends: status 0 when it heard `ready`, else
// 1. The daemon then stands in `/`, and what it makes is nobody's but its owner's and group's. A
// daemon whose first run is gone when it is ready ends, too.

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, writeSync } from 'node:fs';
import { Readable } from 'node:stream';
import { createInterface } from 'node:readline';

import { BlockError } from '../../base/index.js';
import { packageFile } from '../../host/index.js';
import { report } from '../program.js';
import type { Program } from '../program.js';

/** Tells the second run that it is one; taken out of its environment at once. */
const MARK = 'BLOCKWRIGHT_DETACHED';
const PIPE = 3;
/** Nothing is open to the rest of the world: sockets are made with these bits off. */
const CREATION_MASK = 0o027;

/** One line of the pipe. */
interface Message {
  readonly kind: 'out' | 'err' | 'ready';
  readonly text: string;
}

/** The first run. Gives its exit status. */
export async function runDetached(args: readonly string[], program: Program): Promise<number> {
  const main = packageFile('dist/cli/blockwright.js');
  const words = [main, '--as', program.name, 'storage-daemon', ...args];
  const daemon = spawn(process.execPath, [...process.execArgv, ...words], {
    detached: true,
    env: { ...process.env, [MARK]: '1' },
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  const end = endOf(daemon);
  const isReady = await relay(daemon, program);
  if (isReady) {
    daemon.unref();
    return 0;
  }
  const reason = await end;
  if (reason !== null) report(program, `the daemon was ended: ${reason}`);
  return 1;
}

/** Null for a daemon that has ended by itself and told why. */
function endOf(daemon: ChildProcess): Promise<string | null> {
  return new Promise((resolve) => {
    daemon.once('error', (error) => resolve(error.message));
    daemon.once('exit', (_status, signal) => resolve(signal));
  });
}

/** Prints what the daemon says; whether it said that it is ready. */
async function relay(daemon: ChildProcess, program: Program): Promise<boolean> {
  const pipe = daemon.stdio[PIPE];
  if (!(pipe instanceof Readable)) return false;
  for await (const line of createInterface({ input: pipe })) {
    const { kind, text } = JSON.parse(line) as Message;
    if (kind === 'ready') return true;
    if (kind === 'out') program.out(text);
    else program.err(text);
  }
  return false;
}

/** The second run's side of the pipe. */
export class Detached {
  readonly program: Program;
  #isOpen = true;

  private constructor(name: string) {
    this.program = {
      name,
      out: (text) => this.#send({ kind: 'out', text }),
      err: (text) => this.#send({ kind: 'err', text }),
      terminal: false,
    };
  }

  /** Null in a run that a person started. */
  static enter(name: string): Detached | null {
    if (process.env[MARK] !== '1') return null;
    delete process.env[MARK];
    process.umask(CREATION_MASK);
    // Stopping is for those who have a terminal.
    for (const signal of ['SIGTSTP', 'SIGTTIN', 'SIGTTOU'] as const) {
      process.on(signal, () => undefined);
    }
    return new Detached(name);
  }

  /** Lets the first run end; from here on nobody reads what is said. Throws when it is gone. */
  ready(): void {
    process.chdir('/');
    if (!this.#send({ kind: 'ready', text: '' })) {
      throw new BlockError('io', 'the program that started the daemon is gone');
    }
    this.#isOpen = false;
    closeSync(PIPE);
  }

  #send(message: Message): boolean {
    if (!this.#isOpen) return false;
    const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(PIPE, bytes, at);
      return true;
    } catch {
      return false;
    }
  }
}
