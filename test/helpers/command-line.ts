// SPDX-License-Identifier: Apache-2.0
// Command lines run to their end; what they printed is judged the same with and without the
// native addon.
import { spawnSync } from 'node:child_process';

export interface Outcome {
  readonly out: string;
  readonly err: string;
  readonly status: number | null;
}

/** Without the addon one line warns that images are not locked; it is no complaint. */
const NOT_LOCKED = /^.*images are not locked against other programs.*\r?\n/gm;

export function complaintsOf(errorOutput: string): string {
  return errorOutput.replace(NOT_LOCKED, '');
}

export function runIn(cwd: string, words: readonly string[]): Outcome {
  const [program = '', ...args] = words;
  const { stdout, stderr, status } = spawnSync(program, args, { cwd, encoding: 'utf8' });
  return { out: stdout, err: complaintsOf(stderr), status };
}
