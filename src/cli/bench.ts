// SPDX-License-Identifier: Apache-2.0
// `blockwright bench`: the benches live in bench/ of the repository, are built to dist/bench and
// are not part of the published package, so they are loaded by path and may be missing.
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { packageFile } from '../host/index.js';

/** No import, so no edge of the floors. */
const BENCH_MAIN = 'dist/bench/main.js';

interface BenchMain {
  readonly main: (args: readonly string[]) => Promise<number>;
}

/** Runs the benches; gives the exit status. */
export async function runBench(args: readonly string[]): Promise<number> {
  const path = packageFile(BENCH_MAIN);
  if (!existsSync(path)) {
    process.stderr.write(
      'blockwright: the benches are not built; run "npm run bench" in a source checkout\n',
    );
    return 1;
  }
  const { main } = (await import(pathToFileURL(path).href)) as BenchMain;
  return main(args);
}
