// SPDX-License-Identifier: Apache-2.0
// Entries that cannot be, met while reading, writing, discarding and keeping snapshots: io and img
// say so in the line in which the real tools do, end with the same status, and mark the image
// corrupt where they do.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommandServer } from '../helpers/command-server.js';
import { peer } from '../helpers/peers.js';

const img = peer('qemu-img');
const io = peer('qemu-io');
const COPIED = 1n << 63n;
const OFFSET = 0x00ff_ffff_ffff_fe00n;

type Damage = (bytes: Buffer) => void;

const u64 = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64BE(at) & OFFSET);
const l1 = (bytes: Buffer): number => u64(bytes, 40);
const l2 = (bytes: Buffer): number => u64(bytes, l1(bytes));
/** Adds to a word that names a cluster, which is no cluster's begin then. */
const move = (place: (bytes: Buffer) => number): Damage => (bytes) => {
  const at = place(bytes);
  bytes.writeBigUInt64BE(bytes.readBigUInt64BE(at) + 0x200n, at);
};
const put = (within: number, value: bigint): Damage => (bytes) => {
  bytes.writeBigUInt64BE(value, l2(bytes) + within);
};

const READ = ['-r', '-c', 'read 0 8k'];
const READ_IN_USE = ['-c', 'read 0 8k'];
const WRITE = ['-c', 'write 0 4k', '-c', 'write 512k 4k'];
const DISCARD = ['-c', 'discard 0 8k'];
const ALLOCATED = ['-r', '-c', 'alloc 0 8k'];
const SNAPSHOT = ['snapshot', '-c', 'x'];
const DELETE = ['snapshot', '-d', 's'];

interface Row {
  readonly name: string;
  readonly base: string;
  readonly damage: Damage;
  readonly acts: readonly (readonly string[])[];
}

const ROWS: readonly Row[] = [
  { name: 'an L2 table', base: 'plain', damage: move(l1), acts: [READ, WRITE, DISCARD, SNAPSHOT] },
  {
    name: 'a data cluster',
    base: 'plain',
    damage: move(l2),
    acts: [READ, READ_IN_USE, WRITE, DISCARD, ALLOCATED, SNAPSHOT],
  },
  {
    name: 'a cluster of zeroes',
    base: 'plain',
    damage: (bytes) => put(0, bytes.readBigUInt64BE(l2(bytes)) + 0x201n)(bytes),
    acts: [READ, DISCARD],
  },
  {
    name: 'a refcount block',
    base: 'plain',
    damage: move((bytes) => u64(bytes, 48)),
    acts: [['-c', 'write 64k 4k'], SNAPSHOT],
  },
  {
    name: "a snapshot's L2 table",
    base: 'snapshot',
    damage: move((bytes) => u64(bytes, u64(bytes, 64))),
    acts: [READ, DELETE],
  },
  {
    name: 'a compressed cluster beside a data file',
    base: 'data-file',
    damage: put(0, (1n << 62n) | 0x5000n),
    acts: [READ, READ_IN_USE],
  },
  {
    name: 'a cluster elsewhere in a data file',
    base: 'data-file',
    damage: put(0, COPIED | 0x3000n),
    acts: [READ, READ_IN_USE],
  },
  {
    name: 'a subcluster both allocated and zero',
    base: 'extended',
    damage: put(8, 0x1_0000_0001n),
    acts: [READ, READ_IN_USE, WRITE],
  },
];

interface Outcome {
  readonly status: number | null;
  readonly lines: readonly string[];
  readonly corrupt: boolean;
}

const lacksTools = img === null || io === null;

describe.skipIf(lacksTools)('an entry that cannot be is told in the same words', () => {
  const server = new CommandServer();
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'corruption-'));
    const make = (name: string, options: string): void => {
      const size = ['-f', 'qcow2', '-o', options, name, '1M'];
      execFileSync(img ?? '', ['create', '-q', ...size], { cwd: folder });
      execFileSync(io ?? '', ['-c', 'write -P 1 0 32k', name], { cwd: folder });
    };
    for (const name of ['plain', 'snapshot']) make(name, 'cluster_size=4096');
    make('data-file', 'cluster_size=4096,data_file=data');
    make('extended', 'cluster_size=16k,extended_l2=on');
    execFileSync(img ?? '', ['snapshot', '-c', 's', 'snapshot'], { cwd: folder });
  });
  afterAll(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  type Run = (image: string) => readonly [number | null, string];

  function outcome(bytes: Buffer, run: Run): Outcome {
    const path = join(folder, 'image');
    writeFileSync(path, bytes);
    const [status, text] = run('image');
    const lines = text.split('\n').filter((line) => line.startsWith('qcow2: '));
    return { status, lines, corrupt: ((readFileSync(path)[79] ?? 0) & 2) !== 0 };
  }

  for (const { name, base, damage, acts } of ROWS) {
    it(name, () => {
      const bytes = readFileSync(join(folder, base));
      damage(bytes);
      for (const words of acts) {
        const isImg = words[0] === 'snapshot';
        const real = outcome(bytes, (image) => {
          const run = spawnSync((isImg ? img : io) ?? '', [...words, image], {
            cwd: folder, encoding: 'utf8',
          });
          return [run.status, run.stderr];
        });
        const own = outcome(bytes, (image) => {
          const line = [isImg ? 'img' : 'io', ...words, image];
          const run = server.run(folder, line);
          return [run.status, run.err];
        });
        expect(own, words.join(' ')).toEqual(real);
        if (base !== 'snapshot') expect(own.lines, words.join(' ')).toHaveLength(1);
      }
    });
  }
});
