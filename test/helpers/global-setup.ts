// SPDX-License-Identifier: Apache-2.0
// Lanes and the command line run from dist, so it is built (incrementally) and bundled before any
// test, as `npm run build` does it; `npm test` has done so by then.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

export default function setup(): void {
  const isBuilt = /^test(:campaign)?$/.test(process.env['npm_lifecycle_event'] ?? '');
  if (isBuilt || process.env['BLOCKWRIGHT_SKIP_BUILD'] === '1') return;
  const manifest = createRequire(import.meta.url).resolve('typescript/package.json');
  const tsc = join(dirname(manifest), 'bin', 'tsc');
  const build = (...args: readonly string[]): void =>
    void execFileSync(process.execPath, args, { stdio: 'inherit' });
  build(tsc, '-p', 'tsconfig.json');
  build('src/cli/bundle.mjs');
}
