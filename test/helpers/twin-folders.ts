// SPDX-License-Identifier: Apache-2.0
// Twin folders with the same images: in one the real qemu-img runs a command line, in the other
// Blockwright's.
//
// Some lines go through the shim, each in a process of its own (in campaigns all do); the others,
// which would prove nothing more by that, one after another through one process.
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { runIn } from './command-line.js';
import { CommandServer } from './command-server.js';
import type { Outcome } from './command-line.js';
import { peer } from './peers.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const PROGRAMS = new Set(['qemu-img', 'qemu-io']);
/** Of so many lines one is run by the shim. */
const STEP = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? 10 : 1;

export class TwinFolders {
  readonly folder = mkdtempSync(join(tmpdir(), 'blockwright-twins-'));
  readonly theirs = join(this.folder, 'theirs');
  readonly ours = join(this.folder, 'ours');
  readonly #server = new CommandServer();
  #lines = 0;

  constructor() {
    mkdirSync(this.theirs);
    runIn(this.folder, [process.execPath, PROGRAM, 'shim', join(this.folder, 'bin')]);
  }

  /** Makes images with the real tools; before split(). */
  make(lines: readonly string[]): void {
    for (const line of lines) {
      const { status, err, out } = this.real(line);
      if (status !== 0) throw new Error(`${line}: ${err}${out}`);
    }
  }

  /** From here on there are two of everything. */
  split(): void {
    cpSync(this.theirs, this.ours, { recursive: true });
  }

  real(line: string, cwd = this.theirs): Outcome {
    const [program = '', ...args] = wordsOf(line);
    const path = PROGRAMS.has(program) ? peer(program) : program;
    return withoutDescriptions(runIn(cwd, [path ?? program, ...args]));
  }

  /** The same words given to Blockwright. */
  shim(line: string, cwd = this.ours): Outcome {
    const [program = '', ...args] = wordsOf(line);
    if (program !== 'qemu-img') return runIn(cwd, [program, ...args]);
    this.#lines += 1;
    if (this.#lines % STEP === 0) {
      return withoutDescriptions(runIn(cwd, [join(this.folder, 'bin', program), ...args]));
    }
    return withoutDescriptions(this.#server.run(cwd, ['--as', program, 'img', ...args]));
  }

  remove(): void {
    this.#server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Words between blanks; 'quoted words' are one. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '');
}

/** Lists of options have the names and types of the reference, and words of their own. */
function withoutDescriptions({ out, err, status }: Outcome): Outcome {
  return { out: out.replaceAll(/^( {2}[\w.-]+=<[^>]*>) +- .+$/gm, '$1'), err, status };
}
