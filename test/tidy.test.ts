// SPDX-License-Identifier: Apache-2.0
// The house rules, run over the repository; a canary tree shows that each rule still bites.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SourceTree } from './helpers/source-tree.js';
import { readSourceTree } from './helpers/source-tree.js';
import * as rules from './helpers/tidy-rules.js';

const ROOT = new URL('..', import.meta.url).pathname.replace(/\/$/, '');

describe('the repository', () => {
  let tree: SourceTree;
  beforeAll(() => {
    tree = readSourceTree(ROOT, ['test/tsconfig.json', 'bench/tsconfig.json']);
  });

  it('has its code parsed', () => {
    expect(tree.code.length).toBeGreaterThan(20);
  });

  it('imports downwards only and through doors', () => {
    expect(rules.importsGoDown(tree)).toEqual([]);
  });
  it('lets bench see only the public entries', () => {
    expect(rules.benchUsesPublicEntries(tree)).toEqual([]);
  });
  it('keeps files, functions and lines short', () => {
    expect([...rules.sizesAreKept(tree), ...rules.otherCodeIsKept(tree)]).toEqual([]);
  });
  it('keeps folders small', () => {
    expect(rules.foldersAreSmall(tree)).toEqual([]);
  });
  it('keeps clock, randomness and files in their homes', () => {
    expect(rules.bannedCallsStayHome(tree)).toEqual([]);
  });
  it('names things in its own way', () => {
    expect(rules.namesAreOurs(tree)).toEqual([]);
  });
  it('leaves no unfinished marks', () => {
    expect(rules.nothingIsLeftOver(tree)).toEqual([]);
  });
  it('has a licence line and a head comment in every file', () => {
    expect(rules.headsArePresent(tree)).toEqual([]);
  });
  it('reaches every source file from an entry point', () => {
    expect(rules.everyFileIsImported(tree)).toEqual([]);
  });
  it('documents only paths that exist', () => {
    expect(rules.documentedPathsExist(tree)).toEqual([]);
  });
  it('names no machine path and no registry host', () => {
    expect(rules.noForeignPaths(tree)).toEqual([]);
  });
  it('has the agreed top level', () => {
    expect(rules.topLevelIsAgreed(tree)).toEqual([]);
  });
  it('has a lock file that npm ci accepts on every platform', () => {
    expect(rules.lockFileIsWhole(tree)).toEqual([]);
  });
  it('keeps the golden images under 5 MiB', () => {
    expect(rules.goldenImagesAreSmall(tree)).toEqual([]);
  });
});

const SPDX = '// SPDX-License-Identifier: Apache-2.0\n// Canary.\n';

/** One breach of every rule that reads code. */
const CANARY: Readonly<Record<string, string>> = {
  'tsconfig.json': '{"compilerOptions":{"module":"NodeNext"},"include":["src","bench"]}',
  'package.json': '{}',
  'README.md': 'See `src/base/gone.ts`.\n',
  'notes.txt': 'reads /home/' + 'someone/file\n',
  'src/index.ts': `${SPDX}export * from './base/index.js';\n`,
  'src/base/index.ts': `${SPDX}import '../block/index.js';\nexport const bdrv_open = 1;\n`,
  'src/block/index.ts': `${SPDX}import { a } from '../base/deep.js';\nexport const b = a;\n`,
  'src/base/deep.ts': `${SPDX}export const a = Math.random() + Date.now();\n`,
  'src/jobs/stream/index.ts': `${SPDX}import '../backup/index.js';\nimport 'node:fs';\n`,
  'src/jobs/backup/index.ts': `${SPDX}import '../../drivers/index.js';\n`,
  'src/drivers/index.ts': `export const long = () => {\n${'\n'.repeat(80)}};\n`,
  'src/base/mark.ts': `${SPDX}// ${'TO' + 'DO'}: later\n// ${'x'.repeat(110)}\n`,
  'bench/convert.ts': `${SPDX}import '../src/base/index.js';\n`,
};

describe('a tree with seeded breaches', () => {
  let root: string;
  let tree: SourceTree;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), 'tidy-canary-'));
    for (const [path, text] of Object.entries(CANARY)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    tree = readSourceTree(root, ['tsconfig.json']);
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it('is caught going up, sideways and past an index', () => {
    expect(rules.importsGoDown(tree).sort()).toEqual([
      'src/base/index.ts:3 imports up from base to block (../block/index.js)',
      'src/block/index.ts:3 imports into base past its index.ts (../base/deep.js)',
      'src/jobs/backup/index.ts:3 imports sideways from jobs to drivers (../../drivers/index.js)',
      'src/jobs/stream/index.ts:3 imports sideways into jobs/backup (../backup/index.js)',
    ]);
    expect(rules.benchUsesPublicEntries(tree)).toEqual([
      'bench/convert.ts:3 imports ../src/base/index.js',
    ]);
  });
  it('is caught with long lines and functions', () => {
    expect(rules.sizesAreKept(tree).sort()).toEqual([
      'src/base/mark.ts:4 has 113 columns',
      'src/drivers/index.ts:1 function long has 82 lines',
    ]);
  });
  it('is caught with banned calls, names and marks', () => {
    expect(rules.bannedCallsStayHome(tree).sort()).toEqual([
      'src/base/deep.ts:3 uses Date.now',
      'src/base/deep.ts:3 uses Math.random',
      'src/jobs/stream/index.ts:4 imports node:fs',
    ]);
    expect(rules.namesAreOurs(tree)).toEqual(['src/base/index.ts:4 declares bdrv_open']);
    expect(rules.nothingIsLeftOver(tree)).toEqual(['src/base/mark.ts:3 has an unfinished mark']);
  });
  it('is caught without a licence line, with dead files and wrong paths', () => {
    expect(rules.headsArePresent(tree)).toEqual(['src/drivers/index.ts has no SPDX line']);
    expect(rules.everyFileIsImported(tree).sort()).toEqual([
      'src/base/mark.ts is reached from no entry point',
      'src/drivers/index.ts is reached from no entry point',
      'src/jobs/backup/index.ts is reached from no entry point',
      'src/jobs/stream/index.ts is reached from no entry point',
    ]);
    expect(rules.documentedPathsExist(tree)).toEqual([
      'README.md names src/base/gone.ts, which does not exist',
    ]);
    expect(rules.noForeignPaths(tree)).toHaveLength(1);
    expect(rules.topLevelIsAgreed(tree)).toEqual(['top level holds notes.txt']);
  });
});
