// SPDX-License-Identifier: Apache-2.0
// Names of new images: prefixes of protocols, colons and commas, bytes that are no text. What is
// made is where the same name is looked for when it is opened.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { runIn } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import type { Outcome } from '../helpers/command-line.js';
import { peer } from '../helpers/peers.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const qemuImg = peer('qemu-img');

let top = '';
let folder = '';
let count = 0;
beforeAll(() => {
  top = mkdtempSync(join(tmpdir(), 'blockwright-names-'));
});
beforeEach(() => {
  folder = join(top, `${(count += 1)}`);
  mkdirSync(folder);
  writeFileSync(join(folder, 'source'), Buffer.alloc(65536, 7));
});
afterAll(() => {
  server.close();
  rmSync(top, { recursive: true, force: true });
});

const server = new CommandServer();
const OURS = [process.execPath, PROGRAM, '--as', 'qemu-img', 'img'];

function ours(args: readonly string[]): Outcome {
  const { out, err, status } = server.run(folder, ['--as', 'qemu-img', 'img', ...args]);
  return { out, err, status };
}

const theirs = (args: readonly string[]): Outcome => runIn(folder, [qemuImg ?? '', ...args]);

/** How it ended, and what is in the folder then. */
function effect(run: typeof ours, args: readonly string[]): [Outcome, string[]] {
  const outcome = run(args);
  const left = readdirSync(folder).sort();
  for (const name of left) if (name !== 'source') rmSync(join(folder, name));
  return [outcome, left];
}

const CREATED = [
  'file:new', 'file:a:b', './c:new', 'c:new', 'json:new', 'a,b', '-', 'null-co://', '', 'file:',
];

describe.skipIf(qemuImg === null)('beside the real qemu-img', () => {
  it.each(CREATED)('creates alike: "%s"', (name) => {
    for (const format of ['raw', 'qcow2']) {
      const args = ['create', '-q', '-f', format, '--', name, '1M'];
      expect(effect(ours, args)).toEqual(effect(theirs, args));
    }
  });

  it.each(['file:new', './c:new', 'a,b', '-'])('converts alike: "%s"', (name) => {
    for (const format of ['raw', 'qcow2']) {
      const args = ['convert', '-f', 'raw', '-O', format, '--', 'source', name];
      expect(effect(ours, args)).toEqual(effect(theirs, args));
    }
  });
});

it.each(['c:new', 'nbd:new', 'json:new'])('a conversion to "%s" leaves nothing', (name) => {
  const [{ status }, left] = effect(ours, ['convert', '-O', 'raw', 'source', name]);
  expect(status).toBe(1);
  expect(left).toEqual(['source']);
});

it('a name that is no UTF-8 is refused, for it would be made under another name', () => {
  const script = `exec "$@" "$(printf 'a\\377b')" 1M`;
  const words = [...OURS, 'create', '-q', '-f', 'raw'];
  const { stderr, status } = spawnSync('sh', ['-c', script, 'sh', ...words], {
    cwd: folder,
    encoding: 'utf8',
  });
  expect(status).toBe(1);
  expect(stderr).toContain('UTF-8');
  expect(readdirSync(folder)).toEqual(['source']);
});
