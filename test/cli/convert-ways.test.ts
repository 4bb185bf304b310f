// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { runIn } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { loopDevice } from '../helpers/loop-device.js';
import type { LoopDevice } from '../helpers/loop-device.js';
import { peer } from '../helpers/peers.js';

const MIB = 1024 * 1024;
const reference = peer('qemu-img');
const qemuIo = peer('qemu-io');
let folder = '';

const server = new CommandServer();

function theirs(...args: readonly string[]) {
  const { status, out, err } = runIn(folder, [reference ?? '', ...args]);
  return { status, stdout: out, stderr: err };
}

function ours(...args: readonly string[]) {
  const { status, out, err } = server.run(folder, ['--as', 'qemu-img', 'img', ...args]);
  return { status, stdout: out, stderr: err };
}

interface MapEntry {
  readonly length: number;
  readonly depth: number;
  readonly zero: boolean;
  readonly data: boolean;
}

/** Which ranges are allocated and zero, wherever their bytes are. */
function allocation(image: string): readonly string[] {
  const runs: { kind: string; length: number }[] = [];
  const entries = JSON.parse(theirs('map', '--output=json', image).stdout) as MapEntry[];
  for (const { length, depth, zero, data } of entries) {
    const kind = `${depth} ${zero} ${data}`;
    const last = runs.at(-1);
    if (last?.kind === kind) last.length += length;
    else runs.push({ kind, length });
  }
  return runs.map(({ kind, length }) => `${kind} ${length}`);
}

function writeStale(image: string): void {
  runIn(folder, [qemuIo ?? '', '-c', 'write 7M 64k', image]);
}

function sparse(name: string, size: number, seed: number): void {
  const bytes = Buffer.alloc(size);
  const random = new SeededRandom(seed);
  for (let at = 0; at < size; at += 65_536) {
    if (random.chance(0.5)) random.fill(bytes.subarray(at, at + 50_000));
  }
  writeFileSync(join(folder, name), bytes);
}

describe.skipIf(reference === null)('convert beside the real one', () => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'convert-'));
    sparse('even.raw', 6 * MIB, 1);
    sparse('odd.raw', 3 * MIB + 512 * 7, 2);
    sparse('upper.raw', 6 * MIB, 3);
    theirs('convert', '-O', 'qcow2', 'even.raw', 'base.qcow2');
    theirs('convert', '-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2', 'upper.raw', 'top.qcow2');
    const packed = ['-c', '-o', 'compression_type=zstd,cluster_size=8k'];
    theirs('convert', ...packed, '-O', 'qcow2', 'upper.raw', 'packed.qcow2');
    theirs('create', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base.qcow2', 'empty.qcow2', '8M');
  });
  afterAll(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const cases = [
    '-S 0 even.raw',
    '-S 0 top.qcow2',
    '-S 0 -m 1 even.raw odd.raw',
    'odd.raw even.raw odd.raw',
    '-m 3 -W odd.raw top.qcow2 odd.raw',
    '-S 64k even.raw odd.raw',
    '-c odd.raw odd.raw',
    '-c -S 0 even.raw',
    '-c -o compression_type=zstd odd.raw odd.raw',
    '-c -o compression_type=zstd,cluster_size=2M top.qcow2',
    '-c packed.qcow2',
    '-B base.qcow2 -F qcow2 top.qcow2',
    '-B base.qcow2 -F qcow2 -m 8 -W top.qcow2',
    '-B base.qcow2 -F qcow2 -m 1 empty.qcow2',
  ];
  for (const text of cases) {
    for (const format of ['qcow2', 'raw']) {
      const needsFormat = text.includes('-c') || text.includes('-B');
      if (needsFormat && format === 'raw') continue;
      it(`gives the same image and allocation: ${text} as ${format}`, () => {
        const args = ['convert', ...text.split(' '), '-O', format];
        const mine = ours(...args, 'mine');
        expect(mine).toEqual(theirs(...args, 'reference'));
        expect(mine.status).toBe(0);
        const formats = ['-f', format, '-F', format];
        expect(theirs('compare', ...formats, 'mine', 'reference').status).toBe(0);
        expect(allocation('mine')).toEqual(allocation('reference'));
        if (format === 'qcow2') expect(theirs('check', 'mine').status).toBe(0);
      });
    }
  }

  it.skipIf(qemuIo === null)('leaves nothing of what an older overlay shows', () => {
    sparse('other.raw', 6 * MIB, 4);
    const linked = ['-B', 'base.qcow2', '-F', 'qcow2'];
    const ways = [
      ['other.raw', 'raw', 'top.qcow2', []],
      ['base.qcow2', 'qcow2', 'empty.qcow2', linked],
    ] as const;
    for (const [base, format, source, flags] of ways) {
      const size = source === 'top.qcow2' ? '6M' : '8M';
      theirs('create', '-f', 'qcow2', '-F', format, '-b', base, 'older', size);
      if (flags.length > 0) writeStale('older');
      const convert = ['convert', '-n', ...flags, '-O', 'qcow2', source, 'older'];
      expect(ours(...convert)).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(theirs('compare', source, 'older').stdout).toBe('Images are identical.\n');
    }
  });

  it.skipIf(qemuIo === null)('shows no backing file past the end of the source\'s', () => {
    for (const [name, bytes] of [['short', 1], ['long', 2]] as const) {
      writeFileSync(join(folder, `${name}.raw`), Buffer.alloc(bytes * MIB, 7));
    }
    theirs('create', '-f', 'qcow2', '-F', 'raw', '-b', 'short.raw', 'longer.qcow2', '2M');
    const linked = ['-B', 'long.raw', '-F', 'raw', '-O', 'qcow2'];
    expect(ours('convert', ...linked, 'longer.qcow2', 'linked').status).toBe(0);
    expect(theirs('compare', 'longer.qcow2', 'linked').stdout).toBe('Images are identical.\n');
  });

  describe('into a block device', () => {
    let device: LoopDevice | null = null;
    beforeAll(() => {
      writeFileSync(join(folder, 'disk'), Buffer.alloc(8 * MIB, 0x55));
      device = loopDevice(join(folder, 'disk'));
    });
    afterAll(() => device?.[Symbol.dispose]());

    it.for(['raw data file', 'preallocated image'])('leaves no old bytes: %s', (way, { skip }) => {
      if (device === null) return skip('no loop device');
      const raw = way === 'raw data file';
      const option = raw ? `data_file=${device.path},data_file_raw=on` : 'preallocation=metadata';
      const target = raw ? 'outside.qcow2' : device.path;
      const { status } = ours('convert', '-O', 'qcow2', '-o', option, 'odd.raw', target);
      expect(status).toBe(0);
      expect(theirs('compare', 'odd.raw', target).stdout).toBe('Images are identical.\n');
    });
  });

  it('names the first failure when later sources are read already', () => {
    const { status, stderr } = ours('convert', 'even.raw', 'gone.raw', 'x');
    expect([status, stderr]).toEqual([1, theirs('convert', 'even.raw', 'gone.raw', 'x').stderr]);
  });
});
