// SPDX-License-Identifier: Apache-2.0
// The same command lines in twin folders, through the real tool in one and through Blockwright in
// the other: what they print, how they end and what they leave in the files must be the same.
//
// Lines of commands that need no process of their own are run one after another by one process,
// but for some, and in campaigns all.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { complaintsOf } from './command-line.js';
import { CommandServer } from './command-server.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
/** Of so many lines one is run by the shim. */
const STEP = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? 10 : 1;

export interface Ending {
  readonly out: string;
  readonly err: string;
  readonly status: number | null;
  readonly signal: string | null;
}

export class IoTwins {
  readonly root = mkdtempSync(join(tmpdir(), 'blockwright-twins-'));
  readonly theirs = join(this.root, 'theirs');
  readonly ours = join(this.root, 'ours');
  readonly #first = join(this.root, 'first');
  readonly #server = new CommandServer();
  #lines = 0;

  constructor() {
    mkdirSync(this.#first);
    spawnSync(process.execPath, [PROGRAM, 'shim', join(this.root, 'bin')]);
  }

  /** Runs a real tool on the images that both folders begin with. */
  prepare(program: string, ...args: readonly string[]): void {
    const { status, stderr } = spawnSync(program, args, { cwd: this.#first, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
  }

  reset(): void {
    for (const folder of [this.theirs, this.ours]) {
      rmSync(folder, { recursive: true, force: true });
      cpSync(this.#first, folder, { recursive: true });
    }
  }

  /** Without `input` and with -c, its standard input is not read. */
  shim(name: 'qemu-io' | 'qemu-img', args: readonly string[], input?: string): Ending {
    this.#lines += 1;
    const isServed = input === undefined && this.#lines % STEP !== 0 && args.includes('-c');
    if (isServed && !args.some((word) => /^(sigraise|abort)/.test(word))) {
      const command = name === 'qemu-io' ? 'io' : 'img';
      const { out, err, status } = this.#server.run(this.ours, ['--as', name, command, ...args]);
      return { out: masked(out), err: masked(err), status, signal: null };
    }
    return ending(join(this.root, 'bin', name), args, { cwd: this.ours, input: input ?? '' });
  }

  real(path: string, args: readonly string[], input = ''): Ending {
    return ending(path, args, { cwd: this.theirs, input });
  }

  /** Names of files that differ: by their bytes, images by what they read as. */
  differences(qemuImg: string): string[] {
    return readdirSync(this.theirs).filter((name) => {
      const pair = [join(this.theirs, name), join(this.ours, name)] as const;
      if (!name.endsWith('.qcow2')) return !readFileSync(pair[0]).equals(readFileSync(pair[1]));
      return spawnSync(qemuImg, ['compare', '-U', ...pair]).status !== 0;
    });
  }

  remove(): void {
    this.#server.close();
    rmSync(this.root, { recursive: true, force: true });
  }
}

function ending(
  program: string,
  args: readonly string[],
  { cwd, input }: { readonly cwd: string; readonly input: string },
): Ending {
  const result = spawnSync(program, args, { cwd, input, encoding: 'utf8', timeout: 60_000 });
  const { stdout, stderr, status, signal } = result;
  return { out: masked(stdout), err: masked(complaintsOf(stderr)), status, signal };
}

/** Without times, rates and generated node names. */
function masked(text: string): string {
  return text
    .replaceAll(/ops; .*/g, 'ops; T')
    .replaceAll(/\d+:\d\d:\d\d\.\d\d,[\d.]+,[\d.]+/g, 'T')
    .replaceAll(/#block\d+/g, '#block');
}
