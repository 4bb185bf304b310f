// SPDX-License-Identifier: Apache-2.0
// Command lines of the built program, one after another in one process (command-server.mjs), which
// starts with the first. Calls wait for the answer, as spawnSync does; they go through named pipes.
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { complaintsOf } from './command-line.js';
import type { Outcome } from './command-line.js';

const SERVER = new URL('./command-server.mjs', import.meta.url).pathname;
/** Processor time of a server's whole life; endless work is ended by the kernel. */
const PROCESSOR_SECONDS = 120;
const SCRIPT = `ulimit -t ${PROCESSOR_SECONDS}; exec "$0" "$1" <"$2" >"$3"`;

export interface ServedOutcome extends Outcome {
  /** Processor time of this command line, its threads included. */
  readonly cpuSeconds: number;
  /** Highest resident size since the server started. */
  readonly residentMiB: number;
}

export interface CommandServerOptions {
  readonly env?: Readonly<Record<string, string>>;
}

export class CommandServer implements Disposable {
  readonly #env: NodeJS.ProcessEnv;
  #pipes: { readonly requests: number; readonly answers: number } | null = null;
  /** Processor time of the commands since it started. */
  #spentSeconds = 0;

  constructor({ env = {} }: CommandServerOptions = {}) {
    this.#env = { ...process.env, ...env };
  }

  /** `words`: a command and its arguments; `--as NAME` may stand in front. */
  run(cwd: string, words: readonly string[]): ServedOutcome {
    // Many short commands are no endless work, which the kernel would take them for.
    if (this.#spentSeconds > PROCESSOR_SECONDS / 2) this.close();
    this.#pipes ??= this.#start();
    writeSync(this.#pipes.requests, `${JSON.stringify({ cwd, words })}\n`);
    const answer = this.#readLine(words);
    const outcome = JSON.parse(answer) as ServedOutcome;
    this.#spentSeconds += outcome.cpuSeconds;
    return { ...outcome, err: complaintsOf(outcome.err) };
  }

  close(): void {
    if (this.#pipes === null) return;
    closeSync(this.#pipes.requests);
    closeSync(this.#pipes.answers);
    this.#pipes = null;
    this.#spentSeconds = 0;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #start(): { requests: number; answers: number } {
    const folder = mkdtempSync(join(tmpdir(), 'blockwright-server-'));
    const [requests, answers] = [join(folder, 'requests'), join(folder, 'answers')];
    try {
      execFileSync('mkfifo', [requests, answers]);
      const words = [process.execPath, SERVER, requests, answers];
      spawn('/bin/sh', ['-c', SCRIPT, ...words], {
        env: this.#env,
        stdio: ['ignore', 'ignore', 'inherit'],
      }).unref();
      // Each waits for the shell to open the other end.
      return { requests: openSync(requests, 'w'), answers: openSync(answers, 'r') };
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  /** One answer is a whole line, and nothing follows it before the next request. */
  #readLine(words: readonly string[]): string {
    const parts: Buffer[] = [];
    const chunk = Buffer.alloc(65_536);
    for (;;) {
      const length = readSync(this.#pipes?.answers ?? -1, chunk);
      if (length === 0) {
        this.close();
        throw new Error(`the program ended while it ran: ${words.join(' ')}`);
      }
      parts.push(Buffer.from(chunk.subarray(0, length)));
      if (chunk[length - 1] === 0x0a) return Buffer.concat(parts).toString('utf8');
    }
  }
}
