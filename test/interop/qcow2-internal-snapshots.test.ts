// SPDX-License-Identifier: Apache-2.0
// One image in turns: the real qemu-img and qemu-io write to it, make, apply and delete snapshots,
// and so does this program. After each turn both find it clean, and the image and every snapshot
// hold what was written to them, whoever reads.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { discardRequest, RequestFlag, writeRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { openOn } from '../helpers/qcow2-node.js';
import { someOf } from '../helpers/seeds.js';

const img = peer('qemu-img') ?? '';
const io = peer('qemu-io') ?? '';
const SIZE = 1024 * 1024;
const PIECE = 8192;
const DATE = { dateSeconds: 1, dateNanoseconds: 2, vmClockSeconds: 3, vmClockNanoseconds: 4 };

const SETTINGS = [
  'cluster_size=16384,extended_l2=on',
  'cluster_size=2097152',
  'compat=0.10,cluster_size=4096',
  'cluster_size=65536,extended_l2=on,refcount_bits=8',
  'cluster_size=512,refcount_bits=64',
  'cluster_size=65536,refcount_bits=4',
  'cluster_size=4096,lazy_refcounts=on',
  'cluster_size=4096',
];

type OpenImage = Awaited<ReturnType<typeof openOn>>;

async function withImage(path: string, act: (image: OpenImage) => Promise<void>): Promise<void> {
  const host = new MemoryHost();
  host.putFile('/image', readFileSync(path));
  const image = await openOn(host, '/image');
  await act(image);
  await image.node.close();
  writeFileSync(path, host.fileContents('/image'));
}

/** In the first record of the snapshot table, as a running machine would. */
function sayStateSize(path: string, size: number): void {
  const bytes = readFileSync(path);
  const entry = Number(bytes.readBigUInt64BE(64));
  bytes.writeUInt32BE(size, entry + 32);
  bytes.writeBigUInt64BE(BigInt(size), entry + 40);
  writeFileSync(path, bytes);
}

class Turns {
  readonly #path: string;
  readonly #random: SeededRandom;
  #active = Buffer.alloc(SIZE);
  #snapshots = new Map<string, Buffer>();
  #next = 0;

  constructor(path: string, seed: number) {
    this.#path = path;
    this.#random = new SeededRandom(seed);
  }

  async turn(): Promise<string> {
    const ours = this.#random.chance(0.5);
    const names = [...this.#snapshots.keys()];
    const name = names[this.#random.below(Math.max(1, names.length))];
    const kind = this.#random.below(name === undefined || names.length < 2 ? 4 : 7);
    if (kind < 2) await this.#write(ours);
    else if (kind < 4 || name === undefined) {
      const made = `s${(this.#next += 1)}`;
      this.#snapshots.set(made, Buffer.from(this.#active));
      await this.#act(ours, 'c', made);
    } else if (kind < 6) {
      this.#snapshots.delete(name);
      await this.#act(ours, 'd', name);
    } else {
      this.#active = Buffer.from(this.#snapshots.get(name) ?? this.#active);
      await this.#act(ours, 'a', name);
    }
    return `${ours ? 'ours' : 'theirs'} ${kind}`;
  }

  async #act(ours: boolean, what: 'a' | 'c' | 'd', name: string): Promise<void> {
    if (!ours) {
      execFileSync(img, ['snapshot', `-${what}`, name, this.#path]);
      return;
    }
    await this.#open(async ({ node }) => {
      const all = node.internalSnapshots;
      if (what === 'c') return void (await all.create({ name, ...DATE }));
      const found = all.list().find((each) => each.name === name);
      if (found === undefined) throw new Error(`no snapshot ${name}`);
      return what === 'a' ? all.apply(found) : all.remove(found);
    });
  }

  async #write(ours: boolean): Promise<void> {
    const pieces = SIZE / PIECE;
    const first = this.#random.below(pieces);
    const count = 1 + this.#random.below(Math.min(8, pieces - first));
    const fill = 1 + this.#random.below(250);
    const [offset, length] = [first * PIECE, count * PIECE];
    const way = this.#random.below(3);
    this.#active.fill(way === 2 ? 0 : fill, offset, offset + length);
    if (!ours) {
      const verb = way === 2 ? 'write -z' : `write -P ${fill}`;
      execFileSync(io, ['-c', `${verb} ${offset} ${length}`, this.#path]);
      return;
    }
    await this.#open(async ({ node }) => {
      if (way < 2) {
        const { clusterSize } = node.image;
        const whole = offset % clusterSize === 0 && length % clusterSize === 0;
        const flag = way === 1 && whole ? RequestFlag.compressed : RequestFlag.none;
        await node.write(writeRequest(offset, new Uint8Array(length).fill(fill), flag));
        return;
      }
      await node.write(writeRequest(offset, new Uint8Array(length)));
      await node.discard(discardRequest(offset, length));
    });
  }

  async #open(act: (image: OpenImage) => Promise<void>): Promise<void> {
    await withImage(this.#path, act);
  }

  /** By this program; with `theirs` by the real one as well. */
  async verify(where: string, theirs: boolean): Promise<void> {
    const bytes = readFileSync(this.#path);
    const { corruptions, leaks, checkErrors, messages } = await checkBytes(bytes);
    const found = { corruptions, leaks, checkErrors, messages };
    expect(found, where).toEqual({ corruptions: 0, leaks: 0, checkErrors: 0, messages: [] });
    const host = new MemoryHost();
    host.putFile('/image', bytes);
    const { node, read } = await openOn(host, '/image').then((image) => ({
      node: image.node,
      read: (): Promise<Uint8Array> => image.read(0, SIZE),
    }));
    expect(Buffer.compare(await read(), this.#active), where).toBe(0);
    const listed = node.internalSnapshots.list();
    expect(listed.map(({ name }) => name), where).toEqual([...this.#snapshots.keys()]);
    for (const facts of listed) {
      await node.internalSnapshots.show(facts);
      const same = Buffer.compare(await read(), this.#snapshots.get(facts.name) ?? Buffer.of());
      expect(same, `${where}: ${facts.name}`).toBe(0);
    }
    if (!theirs) return;
    const { status, stdout } = spawnSync(img, ['check', this.#path], { encoding: 'utf8' });
    expect(status, `${where}\n${stdout}`).toBe(0);
    for (const [name, content] of this.#snapshots) {
      const raw = `${this.#path}.raw`;
      execFileSync(img, ['convert', '-l', name, '-O', 'raw', this.#path, raw]);
      expect(Buffer.compare(readFileSync(raw), content), `${where}: their ${name}`).toBe(0);
    }
  }
}

describe.skipIf(img === '' || io === '')('an image with snapshots in turns', () => {
  const folder = mkdtempSync(join(tmpdir(), 'snapshot-turns-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('keeps the size and the bytes of a VM state, whoever wrote them', async () => {
    const path = join(folder, 'state.qcow2');
    execFileSync(img, ['create', '-q', '-f', 'qcow2', path, String(SIZE)]);
    await withImage(path, ({ node }) => node.vmState.write(0, new Uint8Array(65_536).fill(5)));
    execFileSync(img, ['snapshot', '-c', 's1', path]);
    sayStateSize(path, 65_536);
    execFileSync(io, ['-c', 'read -b -P 5 0 64k', '-c', 'write -b -P 6 0 64k', path]);
    await withImage(path, async ({ node }) => {
      await node.internalSnapshots.create({ name: 's2', ...DATE });
      const state = new Uint8Array(65_536);
      await node.vmState.read(0, state);
      expect(Buffer.compare(state, Buffer.alloc(65_536, 6))).toBe(0);
    });
    const list = execFileSync(img, ['snapshot', '-l', path], { encoding: 'utf8' });
    expect(list).toMatch(/s1 +64 KiB[^]*s2 +0 B/);
    await withImage(path, async ({ node }) => {
      const [first] = node.internalSnapshots.list();
      if (first !== undefined) await node.internalSnapshots.apply(first);
    });
    const read = spawnSync(io, ['-c', 'read -b -P 5 0 64k', path], { encoding: 'utf8' });
    expect([read.status, read.stdout]).toEqual([0, expect.not.stringContaining('failed')]);
    expect(spawnSync(img, ['check', path]).status).toBe(0);
  });

  for (const [index, options] of someOf([...SETTINGS.entries()], 2)) {
    it(`is clean and right on both sides: ${options}`, async () => {
      const path = join(folder, `${index}.qcow2`);
      execFileSync(img, ['create', '-q', '-f', 'qcow2', '-o', options, path, String(SIZE)]);
      const turns = new Turns(path, index + 1);
      for (let step = 0; step < 14; step += 1) {
        const what = await turns.turn();
        await turns.verify(`step ${step}, ${what}`, step % 7 === 6);
      }
    }, 60_000);
  }
});
