// SPDX-License-Identifier: Apache-2.0
// Images go both ways between this program and the real tools: what one writes the other reads,
// and the real check finds nothing.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { discardRequest, RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');

interface Format {
  readonly options: string;
  readonly clusterSize: number;
}

const FORMATS: readonly Format[] = [
  { options: 'compat=0.10,cluster_size=512', clusterSize: 512 },
  { options: 'compat=0.10', clusterSize: 65_536 },
  { options: 'compat=1.1,cluster_size=512,refcount_bits=64', clusterSize: 512 },
  { options: 'compat=1.1,cluster_size=4096,refcount_bits=1', clusterSize: 4096 },
  { options: 'compat=1.1,cluster_size=4096,refcount_bits=2', clusterSize: 4096 },
  { options: 'compat=1.1,cluster_size=8192,refcount_bits=4', clusterSize: 8192 },
  { options: 'compat=1.1,cluster_size=16384,refcount_bits=8', clusterSize: 16_384 },
  { options: 'compat=1.1,lazy_refcounts=on', clusterSize: 65_536 },
  { options: 'extended_l2=on,cluster_size=16k', clusterSize: 16_384 },
  { options: 'extended_l2=on,refcount_bits=1', clusterSize: 65_536 },
  { options: 'compat=1.1,cluster_size=2M,refcount_bits=32', clusterSize: 2 ** 21 },
  { options: 'compression_type=zstd,cluster_size=4096', clusterSize: 4096 },
  { options: 'compression_type=zstd,extended_l2=on', clusterSize: 65_536 },
];

const SIZE = 6 * 2 ** 20 + 1536;
const BACKING = 3 * 2 ** 20;

describe.skipIf(qemuImg === null || qemuIo === null)('qcow2 data and the real tools', () => {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-data-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = (name: string): string => join(folder, name);
  const img = (...args: string[]): string => execFileSync(qemuImg ?? '', args).toString();

  function io(name: string, ...commands: string[]): void {
    const flags = commands.flatMap((command) => ['-c', command]);
    const output = execFileSync(qemuIo ?? '', ['-f', 'qcow2', ...flags, path(name)]).toString();
    expect(output).not.toMatch(/failed|Pattern verification/);
  }

  function create(name: string, format: Format, backing: string | null): void {
    const behind = backing === null ? [] : ['-b', path(backing), '-F', 'raw'];
    img('create', '-q', '-f', 'qcow2', '-o', format.options, ...behind, path(name), String(SIZE));
  }

  async function openFile(name: string, backing: Uint8Array | null) {
    const host = new MemoryHost({ seed: 5 });
    host.putFile('/image', readFileSync(path(name)));
    const image = await openOn(host, '/image', backing === null ? null : backingNode(backing));
    return { host, image };
  }

  function rawOf(name: string): Uint8Array {
    img('convert', '-f', 'qcow2', '-O', 'raw', path(name), path(`${name}.raw`));
    return readFileSync(path(`${name}.raw`));
  }

  /** Random requests of all kinds, mirrored in `model`. */
  async function scribble(image: OpenedImage, model: Uint8Array, clusterSize: number) {
    const random = new SeededRandom(clusterSize);
    for (let step = 0; step < 60; step += 1) {
      const compressed = step % 6 === 5;
      const unit = compressed ? clusterSize : 512;
      const units = Math.ceil(SIZE / unit);
      const first = random.below(units);
      const offset = first * unit;
      const count = 1 + random.below(Math.ceil(units / 40));
      const length = Math.min(SIZE, (first + count) * unit) - offset;
      const data = new Uint8Array(length).fill(step + 1);
      if (step % 6 === 4) {
        await image.node.writeZeroes(zeroRequest(offset, length, RequestFlag.mayUnmap));
        model.fill(0, offset, offset + length);
        continue;
      }
      if (step % 3 === 0) random.fill(data);
      const flags = compressed ? RequestFlag.compressed : 0;
      await image.node.write(writeRequest(offset, data, flags));
      model.set(data, offset);
    }
    await image.node.discard(discardRequest(2 ** 20 * 5, 2 ** 20));
  }

  // Every format in both directions; campaigns play it with and without a backing file.
  for (const [index, format] of FORMATS.entries()) {
    for (const withBacking of someOf(index % 2 === 0 ? [false, true] : [true, false], 2)) {
      const title = `${format.options}${withBacking ? ' over a shorter backing file' : ''}`;
      const backing = new Uint8Array(BACKING);
      new SeededRandom(3).fill(backing);

      it(`what is written here is read there: ${title}`, async () => {
        writeFileSync(path('base.raw'), backing);
        create('ours.qcow2', format, withBacking ? 'base.raw' : null);
        const { host, image } = await openFile('ours.qcow2', withBacking ? backing : null);
        const model = new Uint8Array(SIZE);
        if (withBacking) model.set(backing);
        await scribble(image, model, format.clusterSize);
        const ours = await image.read(0, SIZE);
        expect(Buffer.compare(ours.subarray(0, 5 << 20), model.subarray(0, 5 << 20))).toBe(0);
        await image.node.close();
        writeFileSync(path('ours.qcow2'), host.fileContents('/image'));
        expect(img('check', path('ours.qcow2'))).toContain('No errors were found');
        expect(Buffer.compare(rawOf('ours.qcow2'), ours)).toBe(0);
      });

      it(`what is written there is read here: ${title}`, async () => {
        writeFileSync(path('base.raw'), backing);
        create('theirs.qcow2', format, withBacking ? 'base.raw' : null);
        io(
          'theirs.qcow2',
          'write -P 1 0 100k',
          'write -P 2 1000k 1500k',
          'write -z 1200k 200k',
          'write -z -u 1500k 333k',
          'write -c -P 3 4M 2M',
          'write -P 4 2999k 77k',
          'discard 64k 32k',
          `write -P 5 ${SIZE - 512} 512`,
        );
        const { image } = await openFile('theirs.qcow2', withBacking ? backing : null);
        expect(Buffer.compare(await image.read(0, SIZE), rawOf('theirs.qcow2'))).toBe(0);
        // And go on where the other stopped.
        const model = new Uint8Array(await image.read(0, SIZE));
        await scribble(image, model, format.clusterSize);
        await image.node.close();
        const bytes = new Uint8Array(image.file.size());
        await image.file.read(bytes, 0);
        expect(await checkBytes(bytes)).toMatchObject({ corruptions: 0, leaks: 0 });
        writeFileSync(path('theirs.qcow2'), bytes);
        expect(img('check', path('theirs.qcow2'))).toContain('No errors were found');
        const seen = rawOf('theirs.qcow2').subarray(0, 5 << 20);
        expect(Buffer.compare(seen, model.subarray(0, 5 << 20))).toBe(0);
        io('theirs.qcow2', 'write -P 9 10k 3M', 'read -P 9 10k 3M');
        expect(img('check', path('theirs.qcow2'))).toContain('No errors were found');
      });
    }
  }
});
