// SPDX-License-Identifier: Apache-2.0
// Things that are no image, and images that lead to such things: every reading command refuses
// them in one line, in time and in little memory, and never waits for the other end of a pipe.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openNativeHost } from '../../src/host/index.js';
import { CommandServer } from '../helpers/command-server.js';
import { measureLine, misdeeds, refusalLines } from '../helpers/measured-run.js';
import { peer } from '../helpers/peers.js';

const QEMU_IMG = peer('qemu-img');
const server = new CommandServer();
let folder: string;

function img(...args: readonly string[]): void {
  execFileSync(QEMU_IMG ?? '', args, { cwd: folder, stdio: 'pipe' });
}

function overlay(name: string, backing: string, format: string): void {
  img('create', '-q', '-f', 'qcow2', name, '1M');
  img('rebase', '-u', '-b', backing, '-F', format, name);
}

/** `deep250` over `deep249`, and so on: all are the first overlay but for the name below. */
function makeDeepChain(): void {
  img('create', '-q', '-f', 'qcow2', 'deep000', '64k');
  img('create', '-q', '-f', 'qcow2', '-b', 'deep000', '-F', 'qcow2', 'deep001', '64k');
  const overlay = readFileSync(join(folder, 'deep001'));
  const nameAt = overlay.indexOf('deep000');
  for (let depth = 2; depth <= 250; depth += 1) {
    overlay.write(`deep${String(depth - 1).padStart(3, '0')}`, nameAt);
    writeFileSync(join(folder, `deep${String(depth).padStart(3, '0')}`), overlay);
  }
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'strange-'));
  if (QEMU_IMG === null) return;
  execFileSync('mkfifo', ['pipe'], { cwd: folder });
  mkdirSync(join(folder, 'directory'));
  writeFileSync(join(folder, 'one-byte'), 'Q');
  writeFileSync(join(folder, 'magic-only'), Buffer.from('514649fb', 'hex'));
  writeFileSync(join(folder, 'sparse'), '');
  truncateSync(join(folder, 'sparse'), 2 * 2 ** 40);
  overlay('over-pipe', 'pipe', 'raw');
  overlay('over-device', '/dev/zero', 'raw');
  overlay('over-directory', 'directory', 'raw');
  overlay('over-nothing', 'gone\u001b[31m\n', 'raw');
  overlay('loop-by-path', join(folder, 'loop-by-path'), 'qcow2');
  overlay('loop-by-dot', './loop-by-dot', 'qcow2');
  symlinkSync('loop-by-link', join(folder, 'link'));
  overlay('loop-by-link', 'link', 'qcow2');
  const self = { driver: 'qcow2', file: { driver: 'file', filename: 'loop-by-json' } };
  overlay('loop-by-json', `json:${JSON.stringify(self)}`, 'qcow2');
  const nested = `json:${'{"driver":"raw","file":'.repeat(40)}1${'}'.repeat(40)}`;
  overlay('nested-json', nested, 'raw');
  makeDeepChain();
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

describe.skipIf(QEMU_IMG === null)('what is no image', () => {
  const names = [
    'pipe', 'directory', '/dev/null', '/dev/zero', 'one-byte', 'magic-only', 'sparse', 'missing',
    'over-pipe', 'over-device', 'over-directory', 'over-nothing', 'loop-by-path', 'loop-by-dot',
    'loop-by-link', 'loop-by-json', 'nested-json', 'deep250', 'x'.repeat(5000),
  ];
  for (const name of names) {
    it(`is refused as qcow2: ${name.slice(0, 40)}`, () => {
      const source = ['-f', 'qcow2', name];
      for (const args of [
        ['info', '--backing-chain', ...source],
        ['map', ...source],
        ['convert', '-O', 'raw', ...source, 'target'],
      ]) {
        const run = measureLine(server, ['img', ...args], folder);
        expect(misdeeds(run), args[0]).toEqual([]);
        expect(run.status, args[0]).toBe(1);
        expect(refusalLines(run), args[0]).toHaveLength(1);
      }
    });
  }

  it('a sparse file of two tebibytes is read as raw at once', () => {
    // Who cannot see holes must compare every byte.
    const compare = openNativeHost() === null ? [] : [['compare', 'sparse', 'sparse']];
    for (const args of [['info', 'sparse'], ['map', 'sparse'], ...compare]) {
      const [verb = '', ...files] = args;
      const formats = verb === 'compare' ? ['-f', 'raw', '-F', 'raw'] : ['-f', 'raw'];
      const run = measureLine(server, ['img', verb, ...formats, ...files], folder);
      expect(misdeeds(run)).toEqual([]);
      expect(run.status, run.complaint).toBe(0);
    }
  });
});
