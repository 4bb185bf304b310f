// SPDX-License-Identifier: Apache-2.0
// Twin folders with the same images: in one the real qemu-img runs a command line, in the other
// Blockwright's, through the shim.
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { runIn } from './command-line.js';
import type { Outcome } from './command-line.js';
import { peer } from './peers.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const PROGRAMS = new Set(['qemu-img', 'qemu-io']);

export class TwinFolders {
  readonly folder = mkdtempSync(join(tmpdir(), 'blockwright-twins-'));
  readonly theirs = join(this.folder, 'theirs');
  readonly ours = join(this.folder, 'ours');

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
    return runIn(cwd, [path ?? program, ...args]);
  }

  /** The same words given to Blockwright. */
  shim(line: string, cwd = this.ours): Outcome {
    const [program = '', ...args] = wordsOf(line);
    const path = program === 'qemu-img' ? join(this.folder, 'bin', program) : program;
    return runIn(cwd, [path, ...args]);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Words between blanks; 'quoted words' are one. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '');
}
