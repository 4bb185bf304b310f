// SPDX-License-Identifier: Apache-2.0
// Lanes and the command line run from dist, so it is built (incrementally) before any test.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

export default function setup(): void {
  if (process.env['BLOCKWRIGHT_SKIP_BUILD'] === '1') return;
  const manifest = createRequire(import.meta.url).resolve('typescript/package.json');
  const tsc = join(dirname(manifest), 'bin', 'tsc');
  execFileSync(process.execPath, [tsc, '-p', 'tsconfig.json'], { stdio: 'inherit' });
}
