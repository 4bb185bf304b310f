// SPDX-License-Identifier: Apache-2.0
// Command lines of img on the crash disk, the power cut at every write: the view is what it was
// (or, of a resize, has the old or the new size), and every image checks with leaks at most.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { runImg } from '../../src/cli/img/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { READ_WRITE } from '../helpers/graph.js';
import { firstDifference, makeGraph, readAll } from '../helpers/job-stage.js';
import { peer } from '../helpers/peers.js';
import { forEachSeed, someOf } from '../helpers/seeds.js';

const SIZE = 256 * 1024;
const OPTIONS = [
  'cluster_size=64k',
  'cluster_size=4k',
  'cluster_size=4k,refcount_bits=1',
  'cluster_size=16k,compat=0.10',
  'cluster_size=512,refcount_bits=64',
];
const SEEDS = OPTIONS.map((_, index) => index + 1);
let lines = 0;

/** Each line is tried with every second of the options, and the next line with the others. */
function seedsOfLine(): readonly number[] {
  lines += 1;
  return someOf(SEEDS, 2, lines);
}

const folder = mkdtempSync(join(tmpdir(), 'blockwright-img-crash-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

class Stage {
  readonly disk: CrashDisk;
  readonly options: string;
  readonly random: SeededRandom;
  readonly survivors: MemoryHost[] = [];

  constructor(seed: number) {
    this.disk = new CrashDisk({ seed });
    this.random = new SeededRandom(seed);
    this.options = OPTIONS[(seed - 1) % OPTIONS.length] ?? '';
  }

  /** Runs a command line that is to end well. */
  async img(line: string): Promise<void> {
    const said: string[] = [];
    const say = (text: string): void => void said.push(text);
    const words = line.split(' ').map((word) => (word === "''" ? '' : word));
    const program = { name: 'img', out: say, err: say, terminal: false, host: this.disk };
    const status = await runImg(words, program);
    expect([line, status, said.join('')]).toEqual([line, 0, expect.anything()]);
  }

  async make(name: string, size: number, backing?: string): Promise<void> {
    const on = backing === undefined ? '' : `-b ${backing} -F qcow2 `;
    await this.img(`create -q -f qcow2 -o ${this.options} ${on}${name} ${size}`);
    const graph = makeGraph(this.disk);
    const node = await graph.openImage(name, 'qcow2', false);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    for (let count = 0; count < 6; count += 1) {
      const offset = 512 * this.random.below(size / 512);
      const length = Math.min(size - offset, 512 * (1 + this.random.below(150)));
      if (this.random.below(4) === 0) await user.writeZeroes(offset, length);
      else await user.write(offset, new Uint8Array(length).fill(1 + this.random.below(4)));
    }
    await user.detach();
    await graph.closeAll();
  }

  /** Runs it and keeps what a power cut at each of its writes would leave. */
  async cut(line: string): Promise<void> {
    this.disk.onWrite = (index) => {
      if (index % 4 === 0) this.survivors.push(this.disk.durable());
      this.survivors.push(this.disk.afterPowerLoss(this.random));
    };
    await this.img(line);
    this.disk.onWrite = null;
    this.survivors.push(this.disk.durable(), this.disk.afterPowerLoss(this.random));
  }
}

/** As a newcomer reads it through its own header; the image must check well. */
async function viewOf(host: MemoryHost, name: string): Promise<Uint8Array> {
  const graph = makeGraph(host);
  const node = await graph.openImage(name, 'qcow2', true);
  const result = await node.check('none');
  expect([result.corruptions, result.checkErrors, result.messages]).toMatchObject([0, 0, {}]);
  const bytes = await readAll(node);
  await graph.closeAll();
  return bytes;
}

/** What the real tool says of some of the survivors. */
function judge(hosts: readonly MemoryHost[], name: string): void {
  const qemuImg = peer('qemu-img');
  if (qemuImg === null) return;
  for (let at = 0; at < hosts.length; at += Math.ceil(hosts.length / 6)) {
    const path = join(folder, 'judged');
    writeFileSync(path, hosts[at]?.fileContents(name) ?? new Uint8Array());
    const file = { driver: 'file', filename: path };
    const image = `json:${JSON.stringify({ driver: 'qcow2', backing: null, file })}`;
    const { status } = spawnSync(qemuImg, ['check', '-q', image]);
    expect([0, 3]).toContain(status);
  }
}

async function expectSameView(stage: Stage, name: string, before: Uint8Array): Promise<void> {
  // The header alone is written where nothing differs.
  expect(stage.survivors.length).toBeGreaterThan(2);
  for (const survivor of stage.survivors) {
    expect(firstDifference(await viewOf(survivor, name), before)).toBe(-1);
  }
  judge(stage.survivors, name);
}

describe('power cuts at every write', () => {
  it.each([
    ['onto another image', 'rebase -b /other -F qcow2 /top'],
    ['onto an image of the chain', 'rebase -b /base -F qcow2 /top'],
    ['onto nothing', "rebase -b '' /top"],
  ])('rebase %s keeps the view', async (_, line) => {
    await forEachSeed(seedsOfLine(), async (seed) => {
      const stage = new Stage(seed);
      await stage.make('/base', SIZE);
      await stage.make('/other', SIZE - 65_536);
      await stage.make('/middle', SIZE + 65_536, '/base');
      await stage.make('/top', SIZE + 8192, '/middle');
      const before = await viewOf(stage.disk, '/top');
      await stage.cut(line);
      await expectSameView(stage, '/top', before);
      const durable = makeGraph(stage.disk.durable());
      const top = await durable.openImage('/top', 'qcow2', true);
      const wanted = /-b (\S+) /.exec(line)?.[1];
      expect(top.backingLink()?.file ?? "''").toBe(wanted);
      await durable.closeAll();
    });
  });

  it.each([
    ['into the backing file', 'commit /top'],
    ['that keeps the image', 'commit -d /top'],
    ['further down', 'commit -b /base /top'],
  ])('commit %s keeps the view', async (_, line) => {
    await forEachSeed(seedsOfLine(), async (seed) => {
      const stage = new Stage(seed);
      await stage.make('/base', SIZE);
      await stage.make('/middle', SIZE - 65_536, '/base');
      await stage.make('/top', SIZE + 8192, '/middle');
      const before = await viewOf(stage.disk, '/top');
      await stage.cut(line);
      await expectSameView(stage, '/top', before);
      const base = line.includes('/base') ? '/base' : '/middle';
      for (const survivor of stage.survivors) await viewOf(survivor, base);
      expect(firstDifference(await viewOf(stage.disk.durable(), base), before)).toBe(-1);
    });
  });

  it.each([
    ['less', `resize --shrink /top ${SIZE / 4}`, SIZE / 4],
    ['more', `resize /top ${SIZE * 2}`, SIZE * 2],
    ['more, preallocated', `resize --preallocation=metadata /top ${SIZE * 2}`, SIZE * 2],
  ])('resize to %s shows the old or the new image', async (_, line, size) => {
    await forEachSeed(seedsOfLine(), async (seed) => {
      if (line.includes('metadata') && OPTIONS[seed - 1]?.includes('512')) return;
      const stage = new Stage(seed);
      await stage.make('/base', SIZE * 2);
      await stage.make('/top', SIZE, '/base');
      const before = await viewOf(stage.disk, '/top');
      const after = new Uint8Array(size);
      after.set(before.subarray(0, size));
      await stage.cut(line);
      for (const survivor of stage.survivors) {
        const view = await viewOf(survivor, '/top');
        const wanted = view.length === before.length ? before : after;
        expect(firstDifference(view, wanted)).toBe(-1);
      }
      judge(stage.survivors, '/top');
      expect(firstDifference(await viewOf(stage.disk.durable(), '/top'), after)).toBe(-1);
    });
  });

  it.each(['leaks', 'all'])('check -r %s keeps the view and ends clean', async (mode) => {
    await forEachSeed(seedsOfLine(), async (seed) => {
      const stage = new Stage(seed);
      await stage.make('/top', SIZE);
      const before = await viewOf(stage.disk, '/top');
      damageRefcounts(stage, mode === 'all' ? 0 : 1);
      await stage.cut(`check -q -r ${mode} /top`);
      for (const survivor of stage.survivors) {
        const graph = makeGraph(survivor);
        const node = await graph.openImage('/top', 'qcow2', true);
        expect(firstDifference(await readAll(node), before)).toBe(-1);
        await graph.closeAll();
      }
      const durable = makeGraph(stage.disk.durable());
      const node = await durable.openImage('/top', 'qcow2', true);
      expect(await node.check('none')).toMatchObject({ corruptions: 0, checkErrors: 0, leaks: 0 });
      await durable.closeAll();
    });
  });
});

/** All refcounts of the first block from the middle on: cleared, or set where nothing is. */
function damageRefcounts(stage: Stage, least: number): void {
  const bytes = stage.disk.fileContents('/top').slice();
  const view = new DataView(bytes.buffer);
  const block = Number(view.getBigUint64(Number(view.getBigUint64(48))));
  const clusterSize = 2 ** view.getUint32(20);
  const width = view.getUint32(4) === 2 ? 16 : 2 ** view.getUint32(96);
  const clusters = Math.ceil(bytes.length / clusterSize);
  const last = Math.min(clusterSize, Math.floor((clusters * width) / 8));
  if (least === 0) bytes.fill(0, block + Math.floor(last / 2), block + last);
  else bytes.fill(0xff, block + last, block + Math.min(clusterSize, last + 8));
  const longer = new Uint8Array(bytes.length + 64 * clusterSize);
  longer.set(bytes);
  stage.disk.putFile('/top', longer);
}
