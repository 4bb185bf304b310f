// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';

const ROOT = new URL('../..', import.meta.url).pathname;
const SCRIPTS = ['bundle', 'compile-chunks', 'load-chunk'].map((name) => `src/cli/${name}.mjs`);
let folder = '';
let chunks = '';

/** A checkout of its own, so that the bundle which other tests run is left alone. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-bundle-'));
  chunks = join(folder, 'dist/cli/chunks');
  for (const path of ['package.json', ...SCRIPTS]) {
    cpSync(join(ROOT, path), join(folder, path));
  }
  const filter = (path: string): boolean => !path.endsWith('/chunks');
  cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true, filter });
  rmSync(join(folder, 'dist/cli/blockwright.js'), { force: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  bundle();
});
afterAll(() => rmSync(folder, { recursive: true }));

function bundle(...args: string[]): void {
  execFileSync(process.execPath, [join(folder, 'src/cli/bundle.mjs'), ...args]);
}

function run(...args: string[]): string {
  const program = join(folder, 'dist/cli/blockwright.js');
  return execFileSync(process.execPath, [program, ...args], { encoding: 'utf8' });
}

it('is an executable that needs nothing of dist but itself and its chunks', () => {
  expect(statSync(join(folder, 'dist/cli/blockwright.js')).mode & 0o777).toBe(0o755);
  for (const name of readdirSync(join(folder, 'dist'))) {
    if (name !== 'cli') rmSync(join(folder, 'dist', name), { recursive: true });
  }
  try {
    const disk = join(folder, 'disk.qcow2');
    run('img', 'create', '-q', '-f', 'qcow2', disk, '1M');
    expect(JSON.parse(run('img', 'info', '--output=json', disk))).toMatchObject({
      'virtual-size': 1_048_576,
    });
    expect(run('storage-daemon', '--version')).toContain('Blockwright');
  } finally {
    cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true, force: false });
  }
});

it('loads no cryptography for images that are not encrypted', () => {
  const disk = join(folder, 'plain.qcow2');
  const watch = join(folder, 'watch.cjs');
  const loaded = "process.moduleLoadList.filter((name) => name.endsWith(' crypto'))";
  writeFileSync(watch, `process.on('exit', () => console.log('crypto:', ${loaded}.length));`);
  run('img', 'create', '-q', '-f', 'qcow2', disk, '1M');
  const program = join(folder, 'dist/cli/blockwright.js');
  for (const verb of ['info', 'check', 'map']) {
    const args = ['--require', watch, program, 'img', verb, disk];
    expect(execFileSync(process.execPath, args, { encoding: 'utf8' })).toContain('crypto: 0');
  }
});

it('finds its package from wherever it lies', () => {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as object;
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, version: '9.8.7' }));
  expect(run('--version')).toContain('(Blockwright 9.8.7)');
  expect(run('shim', join(folder, 'bin'))).toContain('qemu-img');
  const script = readFileSync(join(folder, 'bin/qemu-img'), 'utf8');
  expect(script).toContain(`'${join(folder, 'dist/cli/blockwright.js')}'`);
});

it('starts with what was compiled of it, and without where that is cut off', () => {
  const [plain = '', encrypted = ''] = ['', '.encrypted'].map((kind) => {
    const end = `.${process.version}-${process.arch}${kind}.compiled`;
    const names = readdirSync(chunks).filter((name) => /^img-\w+\.v/.test(name));
    return join(chunks, names.find((name) => name.endsWith(end)) ?? '');
  });
  expect(statSync(encrypted).size).toBeGreaterThan(statSync(plain).size);
  const help = (): string[] => [run('img', '--help'), run('img', '--help', 'luks')];
  const text = help();
  for (const path of [encrypted, plain]) {
    writeFileSync(path, readFileSync(path).subarray(0, 1000));
    expect(help()).toEqual(text);
    rmSync(path);
    expect(help()).toEqual(text);
  }
});

it('keeps chunks of an older bundle for programs that still run, and removes them later', () => {
  const [young, old] = [join(chunks, 'img-YOUNGONE.js'), join(chunks, 'img-OLDCHUNK.js')];
  for (const path of [young, old]) writeFileSync(path, '');
  const twoHoursAgo = statSync(old).mtimeMs / 1000 - 7200;
  utimesSync(old, twoHoursAgo, twoHoursAgo);
  bundle();
  expect([existsSync(young), existsSync(old)]).toEqual([true, false]);
  bundle('--clean');
  expect(existsSync(young)).toBe(false);
  expect(run('img', '--version')).toContain('version');
});
