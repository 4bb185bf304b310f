// SPDX-License-Identifier: Apache-2.0
// A power cut at any write of a header change, torn at sectors, leaves the old or the new header.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import type { BackingLink } from '../../src/block/index.js';
import { encodeExtensions } from '../../src/drivers/formats/qcow2/header.js';
import { Qcow2Structures, readHeader } from '../../src/drivers/formats/qcow2/structures.js';
import { CrashDisk, MemoryHost } from '../../src/host/index.js';
import { fileChild } from '../helpers/host-file-node.js';
import { peer } from '../helpers/peers.js';
import { createdBytes, createOn } from '../helpers/qcow2-create.js';
import type { CreateOptions } from '../helpers/qcow2-create.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { runs } from '../helpers/seeds.js';

const PATH = '/image';
const CUTS_PER_WRITE = runs(8, 24);
const MIB = 1024 * 1024;
const qemuImg = peer('qemu-img');

interface Facts {
  readonly link: BackingLink | null;
  readonly extensions: readonly number[];
  readonly size: number;
}

async function factsOn(host: MemoryHost): Promise<Facts> {
  const { child, node } = await fileChild(host, PATH);
  const header = await readHeader(node);
  return {
    link: new Qcow2Structures(child, header).backingLink(),
    extensions: header.extensions.map(({ type }) => type).filter((type) => type !== 0x6803f857),
    size: header.fields.size,
  };
}

/** Runs `change` on a crash disk and cuts the power often at each of its writes. */
async function cutEverywhere(
  image: Uint8Array,
  change: (structures: Qcow2Structures) => Promise<void>,
): Promise<{ seen: Facts[]; final: Facts; bytes: Uint8Array }> {
  const disk = new CrashDisk();
  disk.putFile(PATH, image);
  const { child, node } = await fileChild(disk, PATH);
  const structures = new Qcow2Structures(child, await readHeader(node));
  const survivors: MemoryHost[] = [disk.durable()];
  disk.onWrite = (index) => {
    for (let cut = 0; cut < CUTS_PER_WRITE; cut += 1) {
      survivors.push(disk.afterPowerLoss(new SeededRandom(index * 1000 + cut)));
    }
  };
  await change(structures);
  disk.onWrite = null;
  const seen: Facts[] = [];
  for (const survivor of survivors) seen.push(await factsOn(survivor));
  const durable = disk.durable();
  return { seen, final: await factsOn(durable), bytes: durable.fileContents(PATH) };
}

const IMAGES: readonly CreateOptions[] = [
  { size: MIB },
  { size: MIB, version: 'v2' },
  { size: MIB, 'backing-file': 'base.qcow2', 'backing-fmt': 'qcow2' },
  { size: MIB, 'backing-file': 'b'.repeat(600), 'backing-fmt': 'raw' },
  { size: MIB, 'backing-file': 'base.raw' },
  { size: MIB, version: 'v2', 'backing-file': 'base.raw', 'backing-fmt': 'raw' },
  { size: MIB, 'cluster-size': 4096, 'backing-file': 'x'.repeat(1000), 'backing-fmt': 'raw' },
  { size: MIB, 'cluster-size': 512, 'backing-file': 'small', 'backing-fmt': 'raw' },
  { size: MIB, 'cluster-size': 1024, 'backing-file': 'y'.repeat(300), 'backing-fmt': 'qcow2' },
];

const LINKS: readonly (BackingLink | null)[] = [
  { file: 'other.qcow2', format: 'qcow2' },
  { file: 'other.raw', format: 'raw' },
  { file: 'plain', format: null },
  { file: 'a-longer-format', format: 'blklogwrites' },
  { file: `dir/${'n'.repeat(340)}`, format: 'qcow2' },
  null,
];

function shown(options: CreateOptions): string {
  const name = options['backing-file'];
  return JSON.stringify(name === undefined ? options : { ...options, 'backing-file': name.length });
}

function shownLink(link: BackingLink | null): string {
  return link === null ? 'none' : `${link.file.length} bytes, ${link.format ?? 'no format'}`;
}

describe('a change of the backing link', () => {
  for (const options of IMAGES) {
    for (const link of LINKS) {
      it(`is old or new after a power cut: ${shown(options)} to ${shownLink(link)}`, async () => {
        const image = await createdBytes(options);
        const host = new MemoryHost();
        host.putFile(PATH, image);
        const before = await factsOn(host);
        const { seen, final } = await cutEverywhere(image, (structures) =>
          structures.changeBacking(link),
        );
        expect(final.link).toEqual(link);
        const allowed = new Set([JSON.stringify(before), JSON.stringify(final)]);
        for (const facts of seen) expect(allowed).toContain(JSON.stringify(facts));
        expect(JSON.stringify(seen[0])).toBe(JSON.stringify(before));
      });
    }
  }

  it('keeps unknown extensions word for word', async () => {
    const image = await createdBytes({ size: MIB, 'cluster-size': 4096 });
    const data = new Uint8Array([1, 2, 3, 4, 5]);
    image.set(encodeExtensions([{ type: 0x12345678, data }]), 112);
    const host = new MemoryHost();
    host.putFile(PATH, image);
    const { child, node } = await fileChild(host, PATH);
    const structures = new Qcow2Structures(child, await readHeader(node));
    await structures.changeBacking({ file: 'base', format: 'raw' });
    const { extensions } = await readHeader(node);
    expect(extensions.find(({ type }) => type === 0x12345678)?.data).toEqual(data);
    expect(extensions).toHaveLength(2);
  });

  it('is refused with nothing changed when it cannot be atomic', async () => {
    const name = 'z'.repeat(500);
    const image = await createdBytes({ size: MIB, 'cluster-size': 1024, 'backing-file': name });
    const host = new MemoryHost();
    host.putFile(PATH, image);
    const { child, node } = await fileChild(host, PATH);
    const structures = new Qcow2Structures(child, await readHeader(node));
    await expect(
      structures.changeBacking({ file: 'q'.repeat(500), format: 'raw' }),
    ).rejects.toMatchObject({ kind: 'no-space' });
    expect(Buffer.compare(host.fileContents(PATH), image)).toBe(0);
  });

  it('is refused for a name beyond 1023 bytes', async () => {
    const host = new MemoryHost();
    host.putFile(PATH, await createdBytes({ size: MIB }));
    const { child, node } = await fileChild(host, PATH);
    const structures = new Qcow2Structures(child, await readHeader(node));
    await expect(
      structures.changeBacking({ file: 'n'.repeat(1024), format: null }),
    ).rejects.toThrow('Backing file name too long (backing_file_size 1024)');
    await expect(
      structures.changeBacking({ file: 'base', format: 'copy-before-write' }),
    ).rejects.toThrow('Backing format name too long (backing_fmt 17 bytes)');
  });

  it('does not undo a field patch that runs at the same time', async () => {
    const host = new MemoryHost({ seed: 3, laterChance: 1 });
    host.putFile(PATH, await createdBytes({ size: MIB }));
    const { child, node } = await fileChild(host, PATH);
    const structures = new Qcow2Structures(child, await readHeader(node));
    const link = { file: 'base', format: 'raw' };
    await Promise.all([structures.changeBacking(link), structures.patchHeader({ size: 2 * MIB })]);
    await Promise.all([structures.patchHeader({ corrupt: true }), structures.changeBacking(null)]);
    const header = await readHeader(node);
    expect(header.fields.size).toBe(2 * MIB);
    expect(header.fields.incompatibleFeatures.lo).toBe(2);
    expect(header.backingFile).toBe(null);
  });
});

describe.skipIf(qemuImg === null)('a changed header read by qemu-img', () => {
  for (const options of IMAGES) {
    it(`is sound and names the new backing file: ${shown(options)}`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'blockwright-header-'));
      try {
        for (const link of LINKS) {
          const image = await createdBytes(options);
          const { bytes } = await cutEverywhere(image, (all) => all.changeBacking(link));
          const path = join(folder, 'image.qcow2');
          writeFileSync(path, bytes);
          const run = (...args: string[]) => spawnSync(qemuImg ?? '', args, { encoding: 'utf8' });
          const info = run('info', '--output=json', path);
          expect(info.stderr).toBe('');
          const json = JSON.parse(info.stdout) as Record<string, unknown>;
          expect(json['backing-filename']).toBe(link?.file);
          expect(json['backing-filename-format']).toBe(link?.format ?? undefined);
          const node = { driver: 'qcow2', backing: null, file: { driver: 'file', filename: path } };
          expect(run('check', `json:${JSON.stringify(node)}`).status).toBe(0);
        }
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});

describe('creating an image', () => {
  it('leaves a sound image or none at every power cut', async () => {
    for (const options of IMAGES) {
      const disk = new CrashDisk();
      const survivors: MemoryHost[] = [];
      disk.onWrite = (index) => {
        for (let cut = 0; cut < CUTS_PER_WRITE; cut += 1) {
          survivors.push(disk.afterPowerLoss(new SeededRandom(index * 1000 + cut)));
        }
      };
      await createOn(disk, PATH, options);
      let complete = 0;
      for (const survivor of [...survivors, disk.durable()]) {
        if (survivor.fileContents(PATH).every((byte) => byte === 0)) continue;
        const found = await checkOn(survivor, PATH).catch((error: unknown) => String(error));
        if (typeof found === 'string') {
          expect(found).toContain('Image is not in qcow2 format');
          continue;
        }
        complete += 1;
        expect(found).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      }
      expect(complete).toBeGreaterThan(0);
    }
  });

  it('replaces an older image with the same promise', async () => {
    const disk = new CrashDisk();
    disk.putFile(PATH, await createdBytes({ size: 64 * MIB, 'cluster-size': 512 }));
    const survivors: MemoryHost[] = [];
    disk.onWrite = (index) => survivors.push(disk.afterPowerLoss(new SeededRandom(index)));
    await createOn(disk, PATH, { size: MIB });
    const final = await checkOn(disk.durable(), PATH);
    expect(final).toMatchObject({ corruptions: 0, leaks: 0, imageEndOffset: 4 * 65_536 });
  });
});
