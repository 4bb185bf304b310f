// SPDX-License-Identifier: Apache-2.0
// The name of a new file is as durable as its bytes: its folder is synced with the first sync.
import type * as fs from 'node:fs';
import { mkdtempSync, readlinkSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { openDefaultHost } from '../../../src/host/index.js';

const paths = vi.hoisted((): string[] => []);

vi.mock('node:fs', async (original) => {
  const real = await original<typeof fs>();
  return {
    ...real,
    fdatasync(descriptor: number, done: (error: Error | null) => void) {
      paths.push(readlinkSync(`/proc/self/fd/${descriptor}`));
      real.fdatasync(descriptor, done);
    },
  };
});

let folder = '';
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'blockwright-new-')));
  paths.length = 0;
});
afterEach(() => rmSync(folder, { recursive: true }));

it('syncs the folder of a new file once, and of a file that was there never', async () => {
  const host = openDefaultHost();
  const path = join(folder, 'image');
  const fresh = await host.createFile(path);
  await fresh.sync();
  await fresh.write(new Uint8Array(512), 0);
  await fresh.sync();
  await fresh.close();
  expect(paths).toEqual([path, folder, path]);
  const known = await host.createFile(path);
  await known.sync();
  await known.close();
  expect(paths).toEqual([path, folder, path, path]);
});
