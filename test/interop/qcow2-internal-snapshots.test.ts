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

  async #open(act: (image: Awaited<ReturnType<typeof openOn>>) => Promise<void>): Promise<void> {
    const host = new MemoryHost();
    host.putFile('/image', readFileSync(this.#path));
    const image = await openOn(host, '/image');
    await act(image);
    await image.node.close();
    writeFileSync(this.#path, host.fileContents('/image'));
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
