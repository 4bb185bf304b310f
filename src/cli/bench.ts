// SPDX-License-Identifier: Apache-2.0
// `blockwright bench`: the benches live in bench/ of the repository, are built to dist/bench and
// are not part of the published package, so they are loaded by path and may be missing.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** From dist/cli; no import, so no edge of the floors. */
const BENCH_MAIN = '../bench/main.js';

interface BenchMain {
  readonly main: (args: readonly string[]) => Promise<number>;
}

/** Runs the benches; gives the exit status. */
export async function runBench(args: readonly string[]): Promise<number> {
  const path = fileURLToPath(new URL(BENCH_MAIN, import.meta.url));
  if (!existsSync(path)) {
    process.stderr.write(
      'blockwright: the benches are not built; run "npm run bench" in a source checkout\n',
    );
    return 1;
  }
  const { main } = (await import(path)) as BenchMain;
  return main(args);
}
