// SPDX-License-Identifier: Apache-2.0
// Commands that change what an image says about its chain, the power cut at every write: a new
// process finds the old link or the new one in a header that is whole, and reads the same bytes
// through either. Once the command has answered, what it did is on disk.

import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import type { JsonObject } from '../../src/base/index.js';
import { writeRequest } from '../../src/block/index.js';
import type { BackingLink } from '../../src/block/index.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import { errorOf, pattern, READ_WRITE } from '../helpers/graph.js';
import { firstDifference, makeGraph, readAll } from '../helpers/job-stage.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { forEachSeed } from '../helpers/seeds.js';

const SIZE = 128 * 1024;
const CLUSTER = 4096;
/** Random losses looked at after each write. */
const SUBSETS = 6;

type Arguments = Readonly<Record<string, unknown>>;
type Command = readonly [name: string, args: Arguments];

interface Case {
  readonly title: string;
  /** The image whose link is looked at; it may come into being on the way. */
  readonly image: string;
  readonly setup?: readonly Command[];
  readonly command: Command;
  readonly readOnly?: boolean;
  /** What the header may say: before (null: there is no image yet), and in the end. */
  readonly links: readonly [before: BackingLink | 'none' | 'no image', after: BackingLink | 'none'];
}

const file = (name: string): Arguments => ({ driver: 'file', filename: `/${name}` });
const qcow2 = (name: string, more: Arguments = {}): Arguments => ({
  driver: 'qcow2',
  'node-name': name,
  file: file(name),
  ...more,
});
const link = (name: string): BackingLink => ({ file: `/${name}`, format: 'qcow2' });
const changed: Command = [
  'change-backing-file',
  { device: 'top', 'image-node-name': 'top', 'backing-file': '/twin' },
];
const longName = `/${'./'.repeat(400)}twin`;

const CASES: readonly Case[] = [
  {
    title: 'another backing file',
    image: '/top',
    command: changed,
    links: [link('base'), link('twin')],
  },
  {
    title: 'another backing file of a read-only image',
    image: '/top',
    readOnly: true,
    command: changed,
    links: [link('base'), link('twin')],
  },
  {
    title: 'a backing file with a long name',
    image: '/top',
    command: ['change-backing-file', { ...changed[1], 'backing-file': longName }],
    links: [link('base'), { file: longName, format: 'qcow2' }],
  },
  {
    title: 'the whole chain streamed into its top',
    image: '/top',
    command: ['block-stream', { 'job-id': 'j', device: 'top' }],
    links: [link('base'), 'none'],
  },
  {
    title: 'a snapshot into a file, seen from below',
    image: '/top',
    command: [
      'blockdev-snapshot-sync',
      { 'node-name': 'top', 'snapshot-file': '/snap', 'snapshot-node-name': 's' },
    ],
    links: [link('base'), link('base')],
  },
  {
    title: 'a snapshot into a file, seen from above',
    image: '/snap',
    command: [
      'blockdev-snapshot-sync',
      { 'node-name': 'top', 'snapshot-file': '/snap', 'snapshot-node-name': 's' },
    ],
    links: ['no image', link('top')],
  },
  {
    title: 'an overlay that is open already',
    image: '/over',
    setup: [['blockdev-add', qcow2('over', { backing: null })]],
    command: ['blockdev-snapshot', { node: 'top', overlay: 'over' }],
    links: [link('top'), link('top')],
  },
  {
    title: 'a reopen to read-only',
    image: '/top',
    command: [
      'blockdev-reopen',
      { options: [qcow2('top', { backing: 'base', 'read-only': true })] },
    ],
    links: [link('base'), link('base')],
  },
];

class Stage {
  readonly disk: CrashDisk;
  readonly survivors: MemoryHost[] = [];
  readonly view = new Uint8Array(SIZE);
  readonly #random: SeededRandom;
  engine!: Engine;

  constructor(seed: number) {
    this.disk = new CrashDisk({ seed });
    this.#random = new SeededRandom(seed);
  }

  async start(each: Case): Promise<void> {
    const { disk, view } = this;
    const options = { size: SIZE, 'cluster-size': CLUSTER };
    const backing = (name: string): Arguments => ({
      'backing-file': `/${name}`,
      'backing-fmt': 'qcow2',
    });
    await createOn(disk, '/base', options);
    await createOn(disk, '/twin', options);
    await createOn(disk, '/top', { ...options, ...backing('base') });
    await createOn(disk, '/over', { ...options, ...backing('top') });
    this.engine = await createEngine({ host: disk, lanes: 0 });
    for (const name of ['base', 'twin']) {
      await this.#fill(qcow2(name), 0, pattern(SIZE / 2, 1));
    }
    await this.#fill(qcow2('top', { backing: null }), SIZE / 4, pattern(SIZE / 2, 2));
    view.set(pattern(SIZE / 2, 1));
    view.set(pattern(SIZE / 2, 2), SIZE / 4);
    await this.run(['blockdev-add', qcow2('base', { 'read-only': true })]);
    const access = { backing: 'base', 'read-only': each.readOnly === true };
    await this.run(['blockdev-add', qcow2('top', access)]);
    for (const command of each.setup ?? []) await this.run(command);
    disk.onWrite = () => {
      this.survivors.push(disk.durable());
      for (let subset = 0; subset < SUBSETS; subset += 1) {
        this.survivors.push(disk.afterPowerLoss(this.#random));
      }
    };
  }

  async run([command, args]: Command): Promise<void> {
    const plain = Object.assign(Object.create(null) as JsonObject, args);
    await runCommand(this.engine, { command, args: plain, outOfBand: false });
    for (const job of this.engine.jobs.list()) {
      while (job.status !== 'concluded' && job.status !== 'null') {
        await new Promise((resolve) => void setImmediate(resolve));
      }
    }
  }

  async #fill(options: Arguments, offset: number, bytes: Uint8Array): Promise<void> {
    const name = String(options['node-name']);
    await this.run(['blockdev-add', options]);
    const node = this.engine.graph.require(name);
    const user = await this.engine.graph.attach(node, 'guest', READ_WRITE);
    await node.write(writeRequest(offset, bytes));
    await node.flush();
    await user.detach();
    await this.run(['blockdev-del', { 'node-name': name }]);
  }
}

/** What a new process finds: the link, with the view compared; 'no image' when none opens. */
async function found(
  host: MemoryHost,
  image: string,
  view: Uint8Array,
): Promise<BackingLink | 'none' | 'no image'> {
  const graph = makeGraph(host);
  const options = { driver: 'qcow2', 'read-only': true, file: { driver: 'file', filename: image } };
  try {
    const node = await graph.open(options).catch(() => null);
    if (node === null) return 'no image';
    expect(firstDifference(await readAll(node), view), 'bytes that differ').toBe(-1);
    return node.backingLink() ?? 'none';
  } finally {
    await graph.closeAll();
  }
}

describe('a power cut at any write shows the old chain or the new one', () => {
  it.each(CASES)('$title', async (each) => {
    await forEachSeed(3, async (seed) => {
      const stage = new Stage(seed);
      await stage.start(each);
      await stage.run(each.command);
      stage.survivors.push(stage.disk.durable());
      stage.disk.onWrite = null;
      for (const [index, survivor] of stage.survivors.entries()) {
        const where = `survivor ${index} of ${stage.survivors.length}`;
        const now = await found(survivor, each.image, stage.view);
        const last = index === stage.survivors.length - 1;
        expect(last ? each.links.slice(1) : each.links, where).toContainEqual(now);
        if (now === 'no image') continue;
        const checked = await checkOn(survivor, each.image);
        expect(checked, where).toMatchObject({ corruptions: 0, checkErrors: 0 });
      }
      await stage.engine.close();
    });
  });

  it('a reopen to read-only leaves all that was written on disk', async () => {
    await forEachSeed(5, async (seed) => {
      const each = CASES.at(-1) as Case;
      const stage = new Stage(seed);
      await stage.start(each);
      stage.disk.onWrite = null;
      const user = await stage.engine.graph.attach(
        stage.engine.graph.require('top'),
        'guest',
        READ_WRITE,
      );
      const bytes = pattern(30_000, 9);
      await user.write(50_000, bytes);
      await user.detach();
      stage.view.set(bytes, 50_000);
      await stage.run(each.command);
      expect(await found(stage.disk.durable(), '/top', stage.view)).toEqual(link('base'));
      const checked = await checkOn(stage.disk.durable(), '/top');
      expect(checked).toMatchObject({ corruptions: 0, leaks: 0 });
      await stage.engine.close();
    });
  });

  it('a name that cannot be switched to in one write is refused, unchanged', async () => {
    const each = CASES[0] as Case;
    const stage = new Stage(1);
    await stage.start(each);
    const name = `/${'x'.repeat(1022)}`;
    await stage.run(['change-backing-file', { ...changed[1], 'backing-file': name }]);
    const second: Command = ['change-backing-file', { ...changed[1], 'backing-file': `${name}y` }];
    const before = stage.disk.fileContents('/top');
    await errorOf(() => stage.run(second));
    expect(stage.disk.fileContents('/top')).toEqual(before);
    await stage.engine.close();
  });
});
