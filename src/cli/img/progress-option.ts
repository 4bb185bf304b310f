// SPDX-License-Identifier: Apache-2.0
// Which progress a command line asks for.

import { CliError } from '../program.js';
import type { ProgressMode } from './progress.js';

/** -p shows percentages, `--progress json|percent|none` says which; -q shows none. */
export function progressMode(given: ReadonlyMap<string, string>): ProgressMode {
  if (given.has('quiet')) return 'none';
  const mode = given.get('progress');
  if (mode === undefined) return given.has('show-progress') ? 'percent' : 'none';
  if (mode === 'json' || mode === 'percent' || mode === 'none') return mode;
  throw new CliError('--progress must be json, percent or none');
}
