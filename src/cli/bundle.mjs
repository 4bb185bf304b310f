// SPDX-License-Identifier: Apache-2.0
// Bundles the command line: dist/cli/main.js, as tsc leaves it, into dist/cli/blockwright.js and
// dist/cli/chunks/, and the lanes' thread into dist/cli/chunks/lane-worker.js. `npm run build`.
// All of them are scripts (dist/cli/package.json says so), which start sooner than modules.
//
// Order: chunks, the entry, what V8 makes of the chunks, each moved into place whole; names of
// chunks hold their hash, so a program that runs meanwhile finds the chunks it knows. Chunks that
// no longer belong stay for an hour, for programs that were started before; with --clean (what is
// published) they go at once.

import { execFileSync } from 'node:child_process';
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

/** A script has no `import.meta`. */
const MODULE_URL = "const moduleUrl=require('node:url').pathToFileURL(__filename).href;";

const OPTIONS = {
  absWorkingDir: ROOT,
  outdir: OUTPUT,
  bundle: true,
  format: 'cjs',
  platform: 'node',
  target: 'node20.19',
  external: ['@bokuweb/zstd-wasm', '@peculiar/webcrypto', 'piscina'],
  alias: { 'lru-cache': join(ROOT, 'node_modules/lru-cache/dist/esm/index.js') },
  banner: { js: `'use strict';${MODULE_URL}` },
  define: { 'import.meta.url': 'moduleUrl' },
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

/** What load-chunk.mjs calls. */
const WRAPPED = {
  banner: {
    js: `(function(exports,require,module,__filename,importModule){'use strict';${MODULE_URL}
/* lru-cache is in here, under https://blueoakcouncil.org/license/1.0.0 */`,
  },
  footer: { js: '})' },
};

const built = [];

async function bundle(options) {
  const result = await build({ ...OPTIONS, ...options });
  built.push(result);
  return result;
}

/** What lru-cache looks for when it is loaded, and nobody here uses, is much of Node. */
const lightCache = {
  name: 'light-cache',
  setup(building) {
    building.onLoad({ filter: /lru-cache.dist.esm.(perf|diagnostics-channel)\.js$/ }, () => {
      const unused = '{ hasSubscribers: false }';
      return {
        contents: `export const defaultPerf = Date, metrics = ${unused}, tracing = ${unused};`,
      };
    });
  },
};

/** Of node:crypto: what is used is loaded when it is first called, which takes 4 ms. */
const CRYPTO = ['createCipheriv', 'createDecipheriv', 'createHash', 'getHashes', 'hash', 'pbkdf2'];

const lateCrypto = {
  name: 'late-crypto',
  setup(building) {
    const namespace = 'late-crypto';
    building.onResolve({ filter: /^node:crypto$/ }, ({ path }) => ({ path, namespace }));
    building.onLoad({ filter: /.*/, namespace }, ({ path }) => {
      const lines = [...CRYPTO, 'timingSafeEqual'].map(
        (name) => `export const ${name} = (...all) => crypto().${name}(...all);`,
      );
      lines.unshift(`const crypto = () => process.getBuiltinModule('${path}');`);
      return { contents: lines.join('\n') };
    });
  },
};

const commands = new Map();

/** The bundle of a command, by the module in dist/cli that main.js loads: its name in chunks/. */
async function bundleCommand(module) {
  const entry = join(OUTPUT, module);
  const { metafile } = await bundle({
    entryPoints: { [module.replace(/^\.\/|(\/index)?\.js$/g, '')]: entry },
    entryNames: 'chunks/[name]-[hash]',
    ...WRAPPED,
    plugins: [together, lightCache, lateCrypto],
  });
  const [path] = Object.entries(metafile.outputs).find(
    ([, { entryPoint }]) => entryPoint === relative(ROOT, entry),
  );
  commands.set(module, basename(path));
}

/**
 * Each command that main.js loads is a bundle of its own: code that two of them share is stored
 * twice, and neither loads what only the other needs.
 */
const commandsApart = {
  name: 'commands-apart',
  setup(building) {
    building.onLoad({ filter: /[\\/]dist[\\/]cli[\\/]main\.js$/ }, async ({ path }) => {
      const text = readFileSync(path, 'utf8');
      const loads = /await import\('([^']+)'\)/g;
      await Promise.all([...text.matchAll(loads)].map(([, module]) => bundleCommand(module)));
      const loader = join(ROOT, 'src/cli/load-chunk.mjs');
      const contents = text.replace(
        loads,
        (_, module) => `loadChunk(\`\${__dirname}/chunks/${commands.get(module)}\`)`,
      );
      const [mark] = /^#!.*\n/.exec(contents) ?? [''];
      const rest = contents.slice(mark.length);
      return { contents: `${mark}import { loadChunk } from ${JSON.stringify(loader)}; ${rest}` };
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

/** A script that was not loaded by Node has no `import()`: its loader lends it one. */
function withImports({ path, text }) {
  const contents = path.endsWith('.js') ? text.replaceAll(/\bimport\(/g, 'importModule(') : text;
  return { path, contents };
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
});
assertLanesBesideWorker();

const outputs = built.flatMap(({ outputFiles }) => outputFiles);
const isEntry = ({ path }) => dirname(path) === OUTPUT && path.endsWith('.js');
const now = new Date();
for (const file of outputs.filter((output) => !isEntry(output))) {
  const named = /-[A-Z0-9]{8}\.js$/.test(file.path);
  if (named && existsSync(file.path)) utimesSync(file.path, now, now);
  else moveIntoPlace(named ? withImports(file) : file, 0o644);
}
moveIntoPlace({ path: join(OUTPUT, 'package.json'), contents: '{ "type": "commonjs" }\n' }, 0o644);
for (const file of outputs.filter(isEntry)) moveIntoPlace(file, 0o755);
const compiler = fileURLToPath(new URL('compile-chunks.mjs', import.meta.url));
const stdio = ['ignore', 'pipe', 'inherit'];
const compiled = execFileSync(process.execPath, [compiler], { encoding: 'utf8', stdio });
const kept = new Set([...outputs.map(({ path }) => path), ...compiled.trim().split('\n')]);
removeStale(kept, process.argv.includes('--clean') ? 0 : KEPT_MS);
