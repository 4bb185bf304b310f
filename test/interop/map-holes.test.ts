// SPDX-License-Identifier: Apache-2.0
// Holes of the file inside data clusters show in a map exactly where the reference shows them.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { openNativeHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const ready = qemuImg !== null && qemuIo !== null && openNativeHost() !== null;
const program = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-holes-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

it.skipIf(!ready).each(['metadata', 'off'])(
  'a map of an image with preallocation=%s is that of the reference',
  (preallocation) => {
    const path = join(folder, `${preallocation}.qcow2`);
    const options = `preallocation=${preallocation},cluster_size=64k`;
    execFileSync(qemuImg ?? '', ['create', '-q', '-f', 'qcow2', '-o', options, path, '8M']);
    const writes = ['-c', 'write -P 7 1M 100k', '-c', 'write -P 8 5000k 4k'];
    execFileSync(qemuIo ?? '', ['-f', 'qcow2', ...writes, path]);
    const map = ['map', '--output=json', path];
    const expected = execFileSync(qemuImg ?? '', map, { encoding: 'utf8' });
    const args = [program, 'img', ...map];
    expect(execFileSync(process.execPath, args, { encoding: 'utf8' })).toBe(expected);
  },
);
