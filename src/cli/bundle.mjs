// SPDX-License-Identifier: Apache-2.0
// Bundles the command line: dist/cli/main.js, as tsc leaves it, into dist/cli/blockwright.js and
// dist/cli/chunks/, and the lanes' thread into dist/cli/chunks/lane-worker.js. `npm run build`.
//
// Order: chunks, then the entry, each moved into place whole; names of chunks hold their hash, so a
// program that runs meanwhile finds the chunks it knows. Chunks that no longer belong stay for an
// hour, for programs that were started before; with --clean (what is published) they go at once.

import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const OUTPUT = join(ROOT, 'dist', 'cli');
const CHUNKS = join(OUTPUT, 'chunks');
const KEPT_MS = 3_600_000;

/**
 * Lists of loaders whose modules are bundled with them: in the bundle a file to find and link takes
 * longer than the few verbs or drivers in it that are not needed.
 */
const TOGETHER = /[\\/]dist[\\/](engine[\\/]catalog|cli[\\/]img[\\/]verbs)\.js$/;

const together = {
  name: 'together',
  setup(building) {
    building.onLoad({ filter: TOGETHER }, ({ path }) => {
      const imports = [];
      const text = readFileSync(path, 'utf8').replace(/await import\('([^']+)'\)/g, (_, module) => {
        imports.push(`import * as module${imports.length} from '${module}';`);
        return `module${imports.length - 1}`;
      });
      if (imports.length === 0) throw new Error(`${path} loads nothing lazily`);
      // On the first line, so that the source map's lines stay true.
      return { contents: `${imports.join(' ')} ${text}` };
    });
  },
};

const OPTIONS = {
  absWorkingDir: ROOT,
  outdir: OUTPUT,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  chunkNames: 'chunks/[name]-[hash]',
  sourcemap: true,
  sourcesContent: false,
  treeShaking: true,
  // What is shorter is read faster at each start; names stay, for errors and stacks.
  minifyWhitespace: true,
  minifySyntax: true,
  metafile: true,
  write: false,
  logLevel: 'warning',
};

const built = [];

async function bundle(options) {
  const result = await build({ ...OPTIONS, ...options });
  built.push(result);
  return result;
}

/**
 * Each command that main.js loads is a bundle of its own: code that two of them share is stored
 * twice, and neither loads what only the other needs.
 */
const commandsApart = {
  name: 'commands-apart',
  setup(building) {
    building.onResolve({ filter: /^\./ }, async ({ kind, path, resolveDir }) => {
      if (kind !== 'dynamic-import') return null;
      const name = path.replace(/^\.\/|(\/index)?\.js$/g, '');
      const { metafile } = await bundle({
        entryPoints: { [name]: join(resolveDir, path) },
        entryNames: 'chunks/[name]-[hash]',
        plugins: [together],
      });
      const [entry] = Object.entries(metafile.outputs).find(([, { entryPoint }]) =>
        entryPoint === relative(ROOT, join(resolveDir, path)),
      );
      return { path: `./chunks/${basename(entry)}`, external: true };
    });
  },
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
function assertLanesBesideWorker() {
  const files = built.flatMap(({ metafile }) => Object.entries(metafile.outputs));
  for (const [path, { inputs }] of files) {
    if (!('dist/block/copy/thread-lanes.js' in inputs)) continue;
    if (dirname(join(ROOT, path)) === CHUNKS) continue;
    throw new Error(`bundle: lanes are in ${path}, but their thread is in dist/cli/chunks`);
  }
}

await bundle({
  entryPoints: { blockwright: 'dist/cli/main.js' },
  plugins: [commandsApart],
});
// A thread loads one file.
await bundle({
  entryPoints: { 'chunks/lane-worker': 'dist/block/copy/lane-worker.js' },
  splitting: false,
});
assertLanesBesideWorker();

const outputs = built.flatMap(({ outputFiles }) => outputFiles);
const isEntry = ({ path }) => dirname(path) === OUTPUT && path.endsWith('.js');
const now = new Date();
for (const file of outputs.filter((output) => !isEntry(output))) {
  const named = /-[A-Z0-9]{8}\.js$/.test(file.path);
  if (named && existsSync(file.path)) utimesSync(file.path, now, now);
  else moveIntoPlace(file, 0o644);
}
for (const file of outputs.filter(isEntry)) moveIntoPlace(file, 0o755);
const kept = new Set(outputs.map(({ path }) => path));
removeStale(kept, process.argv.includes('--clean') ? 0 : KEPT_MS);
