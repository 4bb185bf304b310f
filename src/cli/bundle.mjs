// SPDX-License-Identifier: Apache-2.0
// Bundles the command line: dist/cli/main.js, as tsc leaves it, into dist/cli/blockwright.js and
// dist/cli/chunks/, and the lanes' thread into dist/cli/chunks/lane-worker.js. `npm run build`.
//
// Order: chunks, then the entry, each moved into place whole; their names hold their hash, so a
// program that runs meanwhile finds the chunks it knows. Chunks that no longer belong stay for an
// hour, for programs that were started before; with --clean (what is published) they go at once.

import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import { rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const OUTPUT = join(ROOT, 'dist', 'cli');
const CHUNKS = join(OUTPUT, 'chunks');
const KEPT_MS = 3_600_000;

const OPTIONS = {
  absWorkingDir: ROOT,
  outdir: OUTPUT,
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  chunkNames: 'chunks/[name]-[hash]',
  sourcemap: true,
  sourcesContent: false,
  treeShaking: true,
  metafile: true,
  write: false,
  logLevel: 'warning',
};

function moveIntoPlace({ path, contents }, mode) {
  const temporary = `${path}.${process.pid}.new`;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(temporary, contents);
  chmodSync(temporary, mode);
  renameSync(temporary, path);
}

function removeStale(kept, minimumAgeMs) {
  for (const name of readdirSync(CHUNKS)) {
    const path = join(CHUNKS, name);
    if (kept.has(path)) continue;
    const { mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { mtimeMs: Infinity };
    if (Date.now() - mtimeMs >= minimumAgeMs) rmSync(path, { force: true });
  }
}

/** lane-worker.js is looked for beside the module that starts threads. */
function assertLanesBesideWorker({ outputs }) {
  const [output] = Object.entries(outputs).find(
    ([path, { inputs }]) => path.endsWith('.js') && 'dist/block/copy/thread-lanes.js' in inputs,
  ) ?? ['nothing'];
  if (join(ROOT, dirname(output)) !== CHUNKS) {
    throw new Error(`bundle: lanes are in ${output}, but their thread is in dist/cli/chunks`);
  }
}

const main = await build({
  ...OPTIONS,
  splitting: true,
  entryPoints: { blockwright: 'dist/cli/main.js' },
});
// A thread loads one file; it shares no state with the program, so it needs none of its chunks.
const thread = await build({
  ...OPTIONS,
  entryPoints: { 'chunks/lane-worker': 'dist/block/copy/lane-worker.js' },
});
assertLanesBesideWorker(main.metafile);

const isEntry = ({ path }) => basename(path) === 'blockwright.js';
const outputs = [...main.outputFiles, ...thread.outputFiles];
const now = new Date();
for (const file of outputs.filter((output) => !isEntry(output))) {
  const named = /-[A-Z0-9]{8}\.js$/.test(file.path);
  if (named && existsSync(file.path)) utimesSync(file.path, now, now);
  else moveIntoPlace(file, 0o644);
}
for (const file of outputs.filter(isEntry)) moveIntoPlace(file, 0o755);
const kept = new Set(outputs.map(({ path }) => path));
removeStale(kept, process.argv.includes('--clean') ? 0 : KEPT_MS);
