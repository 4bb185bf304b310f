// SPDX-License-Identifier: Apache-2.0
// The house rules as functions from a source tree to breaches. Each breach is one line that names
// file, line and rule; an empty list means the rule holds.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import type { CodeFile, SourceTree } from './source-tree.js';
import { readText } from './source-tree.js';

export type Rule = (tree: SourceTree) => string[];

const FLOORS: Readonly<Record<string, number>> = {
  base: 0,
  schema: 1,
  wire: 1,
  host: 1,
  crypto: 2,
  codec: 2,
  block: 3,
  drivers: 4,
  jobs: 4,
  exports: 4,
  guest: 4,
  api: 5,
  engine: 6,
  qmp: 7,
  agent: 7,
  client: 7,
  testing: 7,
  cli: 8,
};

/** Files through which another folder may be entered. */
const DOORS = new Set(['index.ts', 'options.ts', 'options-catalog.ts']);

const ENTRY_POINTS = [
  'src/index.ts',
  'src/client/index.ts',
  'src/testing/index.ts',
  'src/cli/main.ts',
  'src/crypto/derivation/program.ts',
  'src/crypto/luks2/argon2-worker.ts',
];

const TOP_LEVEL = new Set([
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  'src',
  'native',
  'bench',
  'test',
  'images',
  'README.md',
  'LICENSE',
  'node_modules',
  'dist',
]);

const LIMITS = { fileLines: 600, functionLines: 70, lineColumns: 100, folderFiles: 20 };
const GOLDEN_BYTES = 5 * 1024 * 1024;

/** A suite is a list of tests, however long: `describe(…)`, or a shared one, `describeDriver`. */
const SUITE = /^(callback of describe\b|describe[A-Z])/;

const inSource = (file: CodeFile): boolean => file.path.startsWith('src/');

/** Where an import leads, relative to the root; null when it leaves the tree. */
function resolveImport(from: string, specifier: string): string | null {
  if (!specifier.startsWith('.')) return null;
  return posix.join(posix.dirname(from), specifier).replace(/\.js$/, '.ts');
}

interface Place {
  readonly top: string;
  /** Driver, job or export folder, which must not know its neighbours. */
  readonly unit: string | null;
}

function placeOf(path: string): Place | null {
  const [, top, ...rest] = path.split('/');
  if (top === undefined || rest.length === 0) return null;
  const depth = top === 'drivers' ? 2 : top === 'jobs' || top === 'exports' ? 1 : 0;
  const unit = depth > 0 && rest.length > depth ? rest.slice(0, depth).join('/') : null;
  return { top, unit };
}

function judgeImport(from: string, target: string): string | null {
  const source = placeOf(from);
  const goal = placeOf(target);
  if (source === null || goal === null) return null;
  const door = DOORS.has(posix.basename(target));
  if (source.top === goal.top) {
    if (goal.unit === null || source.unit === goal.unit) return null;
    if (source.unit !== null) return `sideways into ${goal.top}/${goal.unit}`;
    return door ? null : `into ${goal.top}/${goal.unit} past its index.ts`;
  }
  const floor = FLOORS[source.top];
  const below = FLOORS[goal.top];
  if (floor === undefined) return `folder src/${source.top} stands on no floor`;
  if (below === undefined) return `folder src/${goal.top} stands on no floor`;
  if (below > floor) return `up from ${source.top} to ${goal.top}`;
  if (below === floor) return `sideways from ${source.top} to ${goal.top}`;
  return door ? null : `into ${goal.top} past its index.ts`;
}

export const importsGoDown: Rule = (tree) =>
  tree.code.filter(inSource).flatMap((file) =>
    file.imports.flatMap(({ specifier, line }) => {
      const target = resolveImport(file.path, specifier);
      const wrong = target === null ? null : judgeImport(file.path, target);
      return wrong === null ? [] : [`${file.path}:${line} imports ${wrong} (${specifier})`];
    }),
  );

export const benchUsesPublicEntries: Rule = (tree) =>
  tree.code.filter((file) => file.path.startsWith('bench/')).flatMap((file) =>
    file.imports
      .filter(({ specifier }) => !/^(\.\/|node:|blockwright(\/|$))/.test(specifier))
      .map(({ specifier, line }) => `${file.path}:${line} imports ${specifier}`),
  );

export const sizesAreKept: Rule = (tree) =>
  tree.code.flatMap((file) => {
    const lines = file.text.split('\n');
    const breaches: string[] = [];
    if (lines.length - 1 > LIMITS.fileLines) {
      breaches.push(`${file.path} has ${lines.length - 1} lines`);
    }
    lines.forEach((line, index) => {
      if (line.length > LIMITS.lineColumns) {
        breaches.push(`${file.path}:${index + 1} has ${line.length} columns`);
      }
    });
    for (const { name, line, lineCount } of file.functions) {
      if (lineCount <= LIMITS.functionLines || SUITE.test(name)) continue;
      breaches.push(`${file.path}:${line} function ${name} has ${lineCount} lines`);
    }
    return breaches;
  });

const OTHER_CODE = /^(src|native|images)\/.*\.(mjs|cjs|cc|h)$/;

export const otherCodeIsKept: Rule = (tree) =>
  tree.files.filter((path) => OTHER_CODE.test(path)).flatMap((path) => {
    const lines = readText(tree, path).split('\n');
    const long = lines.flatMap((line, index) =>
      line.length > LIMITS.lineColumns ? [`${path}:${index + 1} has ${line.length} columns`] : [],
    );
    return lines.length - 1 > LIMITS.fileLines ? [...long, `${path} is too long`] : long;
  });

export const foldersAreSmall: Rule = (tree) => {
  const counts = new Map<string, number>();
  for (const path of tree.files.filter((name) => /^(src|bench|native)\//.test(name))) {
    const folder = dirname(path);
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }
  return [...counts]
    .filter(([, count]) => count > LIMITS.folderFiles)
    .map(([folder, count]) => `${folder} has ${count} files`);
};

const CLOCK_HOME = 'src/base/clock.ts';
const BANNED_USES: readonly { readonly name: RegExp; readonly homes: readonly string[] }[] = [
  { name: /^Math\.random$/, homes: [] },
  { name: /^(globalThis\.)?(setTimeout|setInterval|performance)$/, homes: [CLOCK_HOME] },
  { name: /^(Date\.now|new Date\(\))$/, homes: [CLOCK_HOME] },
  { name: /^Buffer\.allocUnsafe(Slow)?$/, homes: [] },
];

export const bannedCallsStayHome: Rule = (tree) =>
  tree.code.filter(inSource).flatMap((file) => {
    const calls = file.uses
      .filter(({ name }) =>
        BANNED_USES.some((ban) => ban.name.test(name) && !ban.homes.includes(file.path)),
      )
      .map(({ name, line }) => `${file.path}:${line} uses ${name}`);
    const mayUseFiles = /^src\/(host|cli)\//.test(file.path);
    const files = file.imports
      .filter(({ specifier }) => !mayUseFiles && /^(node:)?fs(\/promises)?$/.test(specifier))
      .map(({ specifier, line }) => `${file.path}:${line} imports ${specifier}`);
    return [...calls, ...files];
  });

export const namesAreOurs: Rule = (tree) => [
  ...tree.code.filter(inSource).flatMap((file) =>
    file.declared
      .filter(({ name }) => /^(bdrv|co|do)_|_internal\d*$/.test(name))
      .map(({ name, line }) => `${file.path}:${line} declares ${name}`),
  ),
  ...tree.code
    .map(({ path }) => path)
    .filter((path) => !/^[a-z0-9]+([-.][a-z0-9]+)*$/.test(posix.basename(path)))
    .map((path) => `${path} is not kebab-case`),
];

// Spelled in pieces, so that this file does not breach its own rule.
const MARKS = ['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'];
const UNFINISHED = new RegExp(`\\b(${MARKS.join('|')})\\b`);

export const nothingIsLeftOver: Rule = (tree) =>
  textFiles(tree).flatMap((path) =>
    readText(tree, path).split('\n').flatMap((line, index) =>
      UNFINISHED.test(line) ? [`${path}:${index + 1} has an unfinished mark`] : [],
    ),
  );

const OWN_CODE = /^(src|bench|test|native|images)\/.*\.(ts|mjs|cjs|cc|h)$/;

/** First line, or second after `#!`: the licence; then, but for pure re-exports, a head comment. */
export const headsArePresent: Rule = (tree) => {
  const own = tree.files.filter((path) => OWN_CODE.test(path));
  const reexports = new Set(
    tree.code.filter((file) => file.onlyReexports).map((file) => file.path),
  );
  return own.flatMap((path) => {
    const lines = readText(tree, path).split('\n');
    if (lines[0]?.startsWith('#!') === true) lines.shift();
    if (lines[0] !== '// SPDX-License-Identifier: Apache-2.0') return [`${path} has no SPDX line`];
    const comment = lines[1] === '//' ? lines[2] : lines[1];
    const isTest = path.endsWith('.test.ts');
    if (reexports.has(path) || isTest || /^(\/\/|\/\*)/.test(comment ?? '')) return [];
    return [`${path} has no head comment`];
  });
};

export const everyFileIsImported: Rule = (tree) => {
  const byPath = new Map(tree.code.map((file) => [file.path, file]));
  const reached = new Set<string>();
  const queue = ENTRY_POINTS.filter((path) => byPath.has(path));
  while (queue.length > 0) {
    const path = queue.pop() ?? '';
    if (reached.has(path)) continue;
    reached.add(path);
    for (const { specifier } of byPath.get(path)?.imports ?? []) {
      const target = resolveImport(path, specifier);
      if (target !== null && byPath.has(target)) queue.push(target);
    }
  }
  return tree.code
    .filter((file) => inSource(file) && !reached.has(file.path))
    .map(({ path }) => `${path} is reached from no entry point`);
};

export const documentedPathsExist: Rule = (tree) =>
  tree.files
    .filter((path) => path.endsWith('.md'))
    .flatMap((path) =>
      mentionedPaths(readText(tree, path))
        .filter((mentioned) => !existsFrom(tree.root, dirname(path), mentioned))
        .map((mentioned) => `${path} names ${mentioned}, which does not exist`),
    );

const REPOSITORY_PATH = /^(?:\.\.?\/)*(?:src|test|bench|images|native|\.ci)(?:\/[\w.-]+)+\/?$/;

function mentionedPaths(text: string): string[] {
  const quoted = [...text.matchAll(/`([^`\s]+)`/g)].map(([, inner]) => inner ?? '');
  const links = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, inner]) => inner ?? '');
  return [...new Set([
    ...quoted.filter((item) => REPOSITORY_PATH.test(item) || /^[\w-]+\/(?:[\w.-]+\/)*$/.test(item)),
    ...quoted.filter((item) => /^[\w.-]+\/[\w./-]+\.(ts|md|mjs|cjs|cc)$/.test(item)),
    ...links.filter((item) => !item.includes('://')),
  ])];
}

function existsFrom(root: string, folder: string, mentioned: string): boolean {
  return ['', folder, 'src'].some((start) => existsSync(join(root, start, mentioned)));
}

const FOREIGN_PATHS = [
  /(?:^|[\s"'`(=])\/(?:work|home|Users)\/\w+/,
  /(?:^|[\s"'`(=])\/root\/\w+/,
  /\/tmp\/(?:brief|claude|bash_jobs)/,
  /"resolved":\s*"https?:/,
  /https?:\/\/[\w.:-]*(?:registry|artifactory|nexus|verdaccio|jfrog)[\w.:-]*/i,
];

export const noForeignPaths: Rule = (tree) =>
  textFiles(tree).flatMap((path) =>
    readText(tree, path).split('\n').flatMap((line, index) =>
      FOREIGN_PATHS.some((foreign) => foreign.test(line))
        ? [`${path}:${index + 1} names a machine path or a registry host`]
        : [],
    ),
  );

function textFiles(tree: SourceTree): string[] {
  return tree.files.filter(
    (path) =>
      (/\.(ts|mjs|cjs|js|json|md|cc|h|yml|txt)$/.test(path) || path.startsWith('.')) &&
      path !== 'test/helpers/tidy-rules.ts',
  );
}

export const topLevelIsAgreed: Rule = (tree) =>
  readdirSync(tree.root)
    .filter((name) => !TOP_LEVEL.has(name) && !name.startsWith('.'))
    .map((name) => `top level holds ${name}`);

export const goldenImagesAreSmall: Rule = (tree) => {
  const golden = tree.files.filter((path) => path.startsWith('images/'));
  const total = golden.reduce((sum, path) => sum + statSync(join(tree.root, path)).size, 0);
  return total > GOLDEN_BYTES ? [`images hold ${total} bytes, more than ${GOLDEN_BYTES}`] : [];
};

interface LockedPackage {
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** `npm ci` refuses a lock file that lacks the optional packages of other platforms. */
export const lockFileIsWhole: Rule = (tree) => {
  const lock = JSON.parse(readText(tree, 'package-lock.json')) as {
    packages: Readonly<Record<string, LockedPackage>>;
  };
  return Object.entries(lock.packages).flatMap(([path, entry]) =>
    Object.keys(entry.optionalDependencies ?? {})
      .filter((name) => !(`node_modules/${name}` in lock.packages))
      .filter((name) => !(`${path}/node_modules/${name}` in lock.packages))
      .map((name) => `package-lock.json lacks ${name} of ${path}`),
  );
};
