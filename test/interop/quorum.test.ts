// SPDX-License-Identifier: Apache-2.0
// Quorums by name: what the command lines print and write about them is that of the real ones.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { openNativeHost } from '../../src/host/index.js';
import { runIn } from '../helpers/command-line.js';
import type { Outcome } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { peer } from '../helpers/peers.js';

const qemuImg = peer('qemu-img');
const daemon = peer('qemu-storage-daemon');
const ready = qemuImg !== null && daemon !== null && openNativeHost() !== null;
const server = new CommandServer();
let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-quorum-'));
  for (const [index, byte] of [7, 8, 7].entries()) {
    writeFileSync(join(folder, `c${index}`), Buffer.alloc(1_048_576).fill(byte, 65_536, 131_072));
  }
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

/** What ours says under the reference's name, and how it ended. */
function ours(name: string, words: readonly string[]): Outcome {
  const { out, err, status } = server.run(folder, ['--as', name, ...words]);
  return { out, err, status };
}

const files = ['c0', 'c1', 'c2'].map((filename) => ({ driver: 'file', filename }));
const NAMES = {
  'a list': { driver: 'quorum', 'vote-threshold': 2, children: files },
  'dotted members': {
    driver: 'quorum',
    'vote-threshold': '2',
    'children.0.driver': 'file',
    'children.0.filename': 'c0',
    'children.1': files[1],
    'children.2': files[2],
  },
  'a child that is not there': { driver: 'quorum', 'vote-threshold': 1, children: ['none'] },
  'no list': { driver: 'quorum', 'vote-threshold': 1 },
  'too few children': { driver: 'quorum', 'vote-threshold': 4, children: files },
  'children that may not differ': {
    driver: 'quorum',
    'vote-threshold': 2,
    blkverify: true,
    children: files,
  },
};

describe.skipIf(!ready)('qemu-img and img agree on', () => {
  const both = (words: readonly string[]): void => {
    const theirs = runIn(folder, [qemuImg ?? '', ...words]);
    expect(ours('qemu-img', ['img', ...words])).toEqual(theirs);
  };

  it.each(Object.entries(NAMES))('info and map of a quorum named by %s', (_, options) => {
    const name = `json:${JSON.stringify(options)}`;
    both(['info', name]);
    both(['info', '--output=json', name]);
    both(['map', '--output=json', name]);
  });

  it('what most children hold', () => {
    const name = `json:${JSON.stringify(NAMES['a list'])}`;
    both(['compare', name, 'c0']);
    both(['compare', name, 'c1']);
    both(['convert', '-O', 'raw', name, 'copy']);
    expect(readFileSync(join(folder, 'copy')).equals(readFileSync(join(folder, 'c2')))).toBe(true);
  });
});

describe.skipIf(!ready)('a quorum on the command line of a daemon is refused alike with', () => {
  it.each([
    'vote-threshold=1,children.0=a,children.2=a',
    'vote-threshold=1,children.0=a,children.1.x=a',
    'vote-threshold=1,children.0=a,children.1.driver=file',
    'vote-threshold=1,children=a',
    'vote-threshold=x,children.0=a',
    'vote-threshold=2,children.0=a',
    'vote-threshold=1,children.0=a,children.1.driver=null-co,children.1.size=1k',
    'children.0=a',
    'vote-threshold=1,rewrite-corrupted=maybe,children.0=a',
  ])('%s', (options) => {
    const first = ['--blockdev', 'driver=null-co,node-name=a,size=1048576'];
    const words = [...first, '--blockdev', `driver=quorum,node-name=q,${options}`];
    const theirs = runIn(folder, [daemon ?? '', ...words]);
    expect(ours('qemu-storage-daemon', ['storage-daemon', ...words])).toEqual(theirs);
  });
});
