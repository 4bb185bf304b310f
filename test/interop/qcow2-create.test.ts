// SPDX-License-Identifier: Apache-2.0
// New images are byte for byte what the real qemu-img makes.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { emptyImage, layOut } from '../../src/drivers/formats/qcow2/create/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { createdBytes, createOn } from '../helpers/qcow2-create.js';
import type { CreateOptions } from '../helpers/qcow2-create.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const qemuImg = peer('qemu-img');
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

function qemuOptions(options: CreateOptions): string {
  const list = [`cluster_size=${options['cluster-size'] ?? 65_536}`];
  if (options.version === 'v2') list.push('compat=0.10');
  if (options['refcount-bits'] !== undefined) {
    list.push(`refcount_bits=${options['refcount-bits']}`);
  }
  if (options['lazy-refcounts'] === true) list.push('lazy_refcounts=on');
  return list.join(',');
}

function combinations(): CreateOptions[] {
  const grid: CreateOptions[] = [];
  for (const clusterSize of [512, KIB, 4 * KIB, 8 * KIB, 64 * KIB, 2 * MIB]) {
    for (const size of [0, 512, 100 * MIB, 3 * GIB]) {
      grid.push({ size, 'cluster-size': clusterSize, version: 'v2' });
      for (const bits of [1, 2, 8, 16, 64]) {
        grid.push({ size, 'cluster-size': clusterSize, 'refcount-bits': bits });
      }
    }
  }
  // Six of each size and of each cluster size: a step of five meets every version and width.
  const list = [...someOf(grid, 5)];
  list.push({ size: GIB, 'lazy-refcounts': true });
  for (const clusterSize of [512, KIB, 64 * KIB]) {
    for (const file of ['base.img', `./${'./'.repeat(120)}base.img`]) {
      const backing = { 'backing-file': file, 'backing-fmt': 'raw', size: GIB };
      list.push({ ...backing, 'cluster-size': clusterSize });
      list.push({ ...backing, 'cluster-size': clusterSize, version: 'v2' });
    }
  }
  return list;
}

describe.skipIf(qemuImg === null)('new qcow2 images beside qemu-img create', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'blockwright-create-'));
    writeFileSync(join(folder, 'base.img'), '');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function reference(options: CreateOptions): Uint8Array {
    const path = join(folder, 'reference.qcow2');
    rmSync(path, { force: true });
    const args = ['create', '-q', '-f', 'qcow2', '-o', qemuOptions(options)];
    if (options['backing-file'] !== undefined) {
      args.push('-b', options['backing-file'], '-F', options['backing-fmt'] ?? 'raw');
    }
    execFileSync(qemuImg ?? '', [...args, path, String(options.size)], { stdio: 'pipe' });
    return readFileSync(path);
  }

  for (const options of combinations()) {
    const backing = options['backing-file'];
    const shown = backing === undefined ? options : { ...options, 'backing-file': backing.length };
    it(`is the same file for ${JSON.stringify(shown)}`, async () => {
      const ours = await createdBytes(options);
      const theirs = reference(options);
      expect(ours.length).toBe(theirs.length);
      if (Buffer.compare(ours, theirs) === 0) return;
      const different = ours.findIndex((byte, index) => byte !== theirs[index]);
      expect.fail(`byte ${different} differs`);
    });
  }

  describe.each([
    { size: 10 * MIB, 'cluster-size': 64 * KIB },
    { size: 3 * MIB + 512, 'cluster-size': 512, version: 'v2' },
    { size: 64 * MIB, 'cluster-size': KIB, 'refcount-bits': 1 },
    { size: 0 },
  ] as const)('with preallocation, %o', (options) => {
    it.each(['metadata', 'falloc', 'full'] as const)('%s: whole, clean and zero', async (mode) => {
      const path = join(folder, 'preallocated.qcow2');
      writeFileSync(path, await createdBytes({ ...options, preallocation: mode }));
      const ask = (...args: string[]): Record<string, number> =>
        JSON.parse(execFileSync(qemuImg ?? '', args, { encoding: 'utf8' })) as never;
      const checked = ask('check', '-f', 'qcow2', '--output=json', path);
      expect(checked['check-errors']).toBe(0);
      expect(checked['leaks'] ?? 0).toBe(0);
      const clusterSize = 'cluster-size' in options ? options['cluster-size'] : 1;
      const clusters = Math.ceil(options.size / clusterSize);
      expect(checked['allocated-clusters'] ?? 0).toBe(clusters);
      writeFileSync(join(folder, 'base.img'), '');
      const compare = ['compare', '-f', 'qcow2', '-F', 'raw', path, join(folder, 'base.img')];
      expect(() => execFileSync(qemuImg ?? '', compare, { stdio: 'pipe' })).not.toThrow();
    });
  });

  it('refuses preallocation together with a backing file, as the reference does', async () => {
    const backing = { 'backing-file': 'base.img', 'backing-fmt': 'raw' } as const;
    await expect(
      createdBytes({ size: MIB, preallocation: 'metadata', ...backing }),
    ).rejects.toThrow('Backing file and preallocation can only be used at the same time');
  });

  it('lays out three hundred thousand refcount blocks at once', () => {
    const options = { file: 'x', size: 40 * GIB, 'cluster-size': 512 } as const;
    const { tables, fileLength } = layOut(emptyImage({ ...options, preallocation: 'metadata' }));
    const [table] = tables;
    expect(table?.bytes.length).toBeGreaterThan((40 * GIB) / (512 * 256) * 8);
    expect(fileLength).toBeGreaterThan(40 * GIB);
  });

  it('leaves a file alone that is to become an image that cannot be', async () => {
    const host = new MemoryHost();
    host.putFile('/image', new Uint8Array(512).fill(7));
    const link = { 'backing-file': 'x'.repeat(400), 'backing-fmt': 'raw' } as const;
    const refused = createOn(host, '/image', { size: MIB, 'cluster-size': 512, ...link });
    await expect(refused).rejects.toThrow('Backing file name too long');
    expect(host.fileContents('/image')).toEqual(new Uint8Array(512).fill(7));
  });

  it('passes qemu-img check where the refcount table needs several clusters', async () => {
    const bytes = await createdBytes({ size: 100 * GIB, 'cluster-size': 512 });
    const path = join(folder, 'large.qcow2');
    writeFileSync(path, bytes);
    expect(() => execFileSync(qemuImg ?? '', ['check', path], { stdio: 'pipe' })).not.toThrow();
  });
});
