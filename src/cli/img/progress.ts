// SPDX-License-Identifier: Apache-2.0
// Progress of a running verb: the reference's percentage line with -p, JSON lines with
// `--progress json`, one line on SIGUSR1 without either.
//
// A step is printed when it moved by one percent or more, and the last one always.

import { CliError, type Program } from '../program.js';

export type ProgressMode = 'none' | 'percent' | 'json';

/** -p shows percentages, `--progress json|percent|none` says which; -q shows none. */
export function progressMode(given: ReadonlyMap<string, string>): ProgressMode {
  if (given.has('quiet')) return 'none';
  const mode = given.get('progress');
  if (mode === undefined) return given.has('show-progress') ? 'percent' : 'none';
  if (mode === 'json' || mode === 'percent' || mode === 'none') return mode;
  throw new CliError('--progress must be json, percent or none');
}

export class Progress {
  readonly #program: Program;
  readonly #mode: ProgressMode;
  readonly #total: number;
  #done = 0;
  #printed = -1;

  /** `total` in bytes; nothing to do counts as done. */
  constructor(program: Program, mode: ProgressMode, total: number) {
    this.#program = program;
    this.#mode = mode;
    this.#total = total;
    if (mode === 'none') process.on('SIGUSR1', this.#onSignal);
    this.update(0);
  }

  readonly #onSignal = (): void => {
    this.#program.out(`    (${this.#percent().toFixed(2)}/100%)\n`);
    this.#program.flush?.();
  };

  #percent(): number {
    return this.#total === 0 ? 100 : Math.min(100, (this.#done / this.#total) * 100);
  }

  /** Bytes done so far. */
  update(done: number): void {
    this.#done = done;
    if (this.#mode === 'none') return;
    const percent = this.#total === 0 && done === 0 ? 0 : this.#percent();
    const first = this.#printed < 0;
    if (first || percent - this.#printed >= 1 || (percent === 100 && this.#printed < 100)) {
      this.#print(percent);
    }
  }

  #print(percent: number): void {
    this.#printed = percent;
    if (this.#mode === 'percent') {
      this.#program.out(`    (${percent.toFixed(2)}/100%)\r`);
      this.#program.flush?.();
      return;
    }
    const line = { done: this.#done, total: this.#total, percent: Number(percent.toFixed(2)) };
    this.#program.out(`${JSON.stringify(line)}\n`);
    this.#program.flush?.();
  }

  /** Everything is done: says 100 once more. */
  complete(): void {
    this.#done = this.#total;
    if (this.#mode !== 'none') this.#print(100);
  }

  /** Ends the line; call once, however the verb ended. */
  end(): void {
    process.off('SIGUSR1', this.#onSignal);
    if (this.#mode !== 'percent') return;
    this.#program.out('\n');
    this.#program.flush?.();
  }
}
