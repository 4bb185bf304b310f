// SPDX-License-Identifier: Apache-2.0
// What the hosts of the operating system refuse to open, at once and in which words.

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Clock, systemClock } from '../../../src/base/index.js';
import { type Host, openNativeHost, openNodeHost } from '../../../src/host/index.js';

const openers: [string, (clock: Clock) => Host | null][] = [
  ['native', (clock) => openNativeHost({ clock })],
  ['node', (clock) => openNodeHost({ clock, warn: () => undefined })],
];

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-open-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

for (const [name, make] of openers) {
  const made = make(systemClock);
  describe.skipIf(made === null)(`the ${name} host`, () => {
    const host = made as Host;

    it('refuses a directory', async () => {
      await expect(host.openFile(folder, { readOnly: true })).rejects.toThrow(
        `'file' driver requires '${folder}' to be a regular file`,
      );
      await expect(host.openFile(folder, { readOnly: false })).rejects.toThrow(
        `Could not open '${folder}': Is a directory`,
      );
      await expect(host.createFile(folder)).rejects.toThrow(
        `Could not create '${folder}': Is a directory`,
      );
    });

    it('refuses a FIFO and a character device without waiting for them', async () => {
      const fifo = join(folder, `fifo-${name}`);
      execFileSync('mkfifo', [fifo]);
      const link = join(folder, `link-${name}`);
      symlinkSync('/dev/zero', link);
      for (const path of [fifo, link, '/dev/null']) {
        for (const readOnly of [true, false]) {
          await expect(host.openFile(path, { readOnly })).rejects.toThrow(
            `'file' driver requires '${path}' to be a regular file`,
          );
        }
        await expect(host.createFile(path)).rejects.toThrow('to be a regular file');
      }
    });

    it('names the folder that is missing when creating', async () => {
      const path = join(folder, 'missing', 'disk.img');
      await expect(host.createFile(path)).rejects.toMatchObject({
        kind: 'not-found',
        message: `Could not create '${path}': No such file or directory`,
      });
      expect(await host.stat(path)).toBeNull();
    });

    it.skipIf(process.getuid?.() === 0)('says when permission is missing', async () => {
      const path = join(folder, `secret-${name}`);
      writeFileSync(path, '');
      chmodSync(path, 0);
      await expect(host.openFile(path, { readOnly: true })).rejects.toMatchObject({
        kind: 'access-denied',
        message: `Could not open '${path}': Permission denied`,
      });
    });

    it('takes a path with a NUL as one that cannot be', async () => {
      await expect(host.openFile('a\0b', { readOnly: true })).rejects.toMatchObject({
        errno: 'EINVAL',
      });
    });

    it('after a write that took long writes through the thread pool for a while', async () => {
      let time = 0;
      let step = 0;
      const clock: Clock = { ...systemClock, now: () => (time += step) };
      const file = await (make(clock) as Host).createFile(join(folder, `slow-${name}`));
      expect(file.write(new Uint8Array(512), 0)).toBeUndefined();
      step = 6;
      expect(file.write(new Uint8Array(512), 0)).toBeUndefined();
      step = 0;
      const later = file.write(new Uint8Array(512), 512);
      expect(later).toBeInstanceOf(Promise);
      await later;
      time += 1001;
      expect(file.write(new Uint8Array(512), 0)).toBeUndefined();
      expect(file.size()).toBe(1024);
      await file.close();
    });

    it('a file grown with preallocation falloc has its room', async () => {
      const path = join(folder, `falloc-${name}`);
      const file = await host.createFile(path);
      await file.truncate(1_000_000, 'falloc');
      expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(1_000_000);
      await expect((async () => file.truncate(10, 'full'))()).rejects.toThrow('shrinking');
      expect(file.size()).toBe(1_000_000);
      await file.close();
    });
  });
}

it('the portable host warns once, when a file is first opened for writing', async () => {
  const lines: string[] = [];
  const host = openNodeHost({ warn: (line) => lines.push(line) });
  const path = join(folder, 'warned');
  writeFileSync(path, '');
  await (await host.openFile(path, { readOnly: true })).close();
  expect(lines).toHaveLength(0);
  await (await host.openFile(path, { readOnly: false })).close();
  await (await host.createFile(path)).close();
  expect(lines).toHaveLength(1);
});
