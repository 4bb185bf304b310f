// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { packageFile } from '../../src/host/index.js';
import { CommandServer } from '../helpers/command-server.js';
import { peer } from '../helpers/peers.js';
import { runs, someOf } from '../helpers/seeds.js';

const MIB = 1024 * 1024;
const SIZE = 12 * MIB;
const reference = peer('qemu-img');
let folder = '';

const at = (name: string): string => join(folder, name);

/** Data with holes short and long, the same for every image of the test. */
function content(): Buffer {
  const bytes = Buffer.alloc(SIZE);
  const random = new SeededRandom(11);
  for (let offset = 0; offset < SIZE; offset += 65_536) {
    if (offset >= 4 * MIB && offset < 7 * MIB) continue;
    if (random.chance(0.7)) random.fill(bytes.subarray(offset, offset + 40_000));
  }
  return bytes;
}

/** Every image that the program has answers for, with the differing bytes of each. */
const CHANGES: Readonly<Record<string, readonly number[]>> = {
  'first-byte.raw': [0],
  'last-byte.raw': [SIZE - 1],
  'two.raw': [9 * MIB + 513, 3 * MIB + 5],
  'in-hole.raw': [5 * MIB + 70_001, SIZE - 1],
  'around-batch.raw': [2 * MIB, 2 * MIB - 1],
};

function compare(program: readonly string[], args: readonly string[]) {
  const [command = '', ...first] = program;
  const { status, stdout, stderr } = spawnSync(command, [...first, 'compare', ...args], {
    cwd: folder,
    encoding: 'utf8',
  });
  return { status, stdout, stderr: stderr.replaceAll('blockwright img', 'qemu-img') };
}

const server = new CommandServer();

function ours(args: readonly string[]) {
  const { status, out, err } = server.run(folder, ['--as', 'qemu-img', 'img', 'compare', ...args]);
  return { status, stdout: out, stderr: err };
}

const alone = (args: readonly string[]) =>
  compare([process.execPath, packageFile('dist/cli/blockwright.js'), 'img'], args);

const ROUNDS = runs(4, 20);

describe.skipIf(reference === null)('compare beside the real one', () => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'compare-'));
    const bytes = content();
    writeFileSync(at('same.raw'), bytes);
    for (const [name, places] of Object.entries(CHANGES)) {
      const changed = Buffer.from(bytes);
      for (const place of places) changed[place] = (changed[place] ?? 0) ^ 0xff;
      writeFileSync(at(name), changed);
    }
    writeFileSync(at('longer.raw'), Buffer.concat([bytes, Buffer.alloc(3 * MIB)]));
    const tail = Buffer.alloc(3 * MIB);
    tail[2 * MIB + 700] = 1;
    writeFileSync(at('longer-data.raw'), Buffer.concat([bytes, tail]));
    const convert = (...args: readonly string[]): void => {
      execFileSync(reference ?? '', ['convert', '-O', 'qcow2', ...args], { cwd: folder });
    };
    convert('same.raw', 'plain.qcow2');
    convert('-c', 'same.raw', 'packed.qcow2');
    convert('-o', 'cluster_size=512', 'same.raw', 'small.qcow2');
    convert('two.raw', 'two.qcow2');
    const backing = ['-F', 'qcow2', '-b', 'two.qcow2'];
    execFileSync(reference ?? '', ['create', '-q', '-f', 'qcow2', ...backing, 'top.qcow2'], {
      cwd: folder,
    });
  });
  afterAll(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const images = ['plain.qcow2', 'packed.qcow2', 'small.qcow2', 'top.qcow2'];
  const raws = [...Object.keys(CHANGES), 'same.raw', 'longer.raw', 'longer-data.raw'];
  for (const image of images) {
    it(`names the first difference to ${image} in guest order`, () => {
      for (const raw of someOf(raws, 2, images.indexOf(image))) {
        for (const args of [['-F', 'raw', image, raw], ['-s', '-F', 'raw', image, raw]]) {
          expect([args, ours(args)]).toEqual([args, compare([reference ?? ''], args)]);
        }
      }
    });
  }

  it('ends in order while its threads are still being started', () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const { status, stderr } = alone(['-F', 'raw', 'packed.qcow2', 'first-byte.raw']);
      expect([status, stderr]).toEqual([1, '']);
    }
  }, 60_000);
});
