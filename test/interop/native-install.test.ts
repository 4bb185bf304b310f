// SPDX-License-Identifier: Apache-2.0
// The install script builds the addon or says in one line why not, and never fails.

import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-install-'));
  const native = new URL('../../native', import.meta.url).pathname;
  cpSync(native, folder, { recursive: true, filter: (path) => !path.endsWith('/build') });
});
afterAll(() => rmSync(folder, { recursive: true }));

function install(environment: Record<string, string>): { status: number | null; lines: string[] } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, 'install.cjs')], {
    env: { ...process.env, BLOCKWRIGHT_NATIVE: '', ...environment },
    encoding: 'utf8',
  });
  return { status, lines: (stdout + stderr).trimEnd().split('\n') };
}

const built = (): boolean => existsSync(join(folder, 'build', 'blockwright.node'));

it('without a compiler succeeds and says so in one line', () => {
  const { status, lines } = install({ PATH: folder, CXX: '' });
  expect(status).toBe(0);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/^blockwright: the native addon is not built \(no /);
  expect(built()).toBe(false);
});

it('with a compiler that fails succeeds, says so in one line and leaves nothing behind', () => {
  const broken = join(folder, 'broken-compiler');
  writeFileSync(broken, '#!/bin/sh\n[ "$1" = --version ] || { echo "error: no" >&2; exit 1; }\n');
  chmodSync(broken, 0o755);
  const { status, lines } = install({ CXX: broken });
  expect(status).toBe(0);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/not built \((error: no|no Node.js headers)\)/);
  expect(built()).toBe(false);
});

it('is skipped on request', () => {
  const { status, lines } = install({ BLOCKWRIGHT_NATIVE: '0' });
  expect(status).toBe(0);
  expect(lines).toEqual(['blockwright: the native addon is not built (BLOCKWRIGHT_NATIVE=0)']);
});

it.skipIf(peer('c++') === null)('builds the addon in a few seconds', () => {
  rmSync(join(folder, 'build'), { recursive: true, force: true });
  const { status, lines } = install({});
  expect(status).toBe(0);
  expect(lines).toEqual(['blockwright: native addon built']);
  expect(built()).toBe(true);
});
