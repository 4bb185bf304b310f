// SPDX-License-Identifier: Apache-2.0
// Jobs by QMP on encrypted images of every kind while a guest writes: what the guest reads never
// changes, and what is on the disk afterwards is opened anew by its keys and is the same.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { JsonObject } from '../../src/base/index.js';
import { SeededRandom } from '../../src/base/index.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import type { Arguments } from '../helpers/fault-stage.js';
import { READ_WRITE } from '../helpers/graph.js';
import { firstDifference, Guest, readAll, turns } from '../helpers/job-stage.js';
import { luksFile, LUKS_PASSWORD } from '../helpers/luks.js';
import { luks2Head } from '../helpers/luks2-image.js';
import { createOn } from '../helpers/qcow2-create.js';
import type { CreateOptions } from '../helpers/qcow2-create.js';
import { runs } from '../helpers/seeds.js';

const SIZE = 2 ** 19 + 4096;
const SECRET = { 'key-secret': 's' } as const;
const LUKS = { format: 'luks', ...SECRET, 'iter-time': 0n, 'cipher-alg': 'aes-128' } as const;
const AES = { format: 'qcow', ...SECRET } as const;

/** Images that can have a backing file, and how they are made. */
const LAYERS: Readonly<Record<string, Omit<CreateOptions, 'size'>>> = {
  plain: { 'cluster-size': 65_536 },
  luks: { 'cluster-size': 4096, encrypt: LUKS },
  'luks in tiny clusters': { 'cluster-size': 512, encrypt: LUKS },
  'luks with subclusters': { 'cluster-size': 16_384, 'extended-l2': true, encrypt: LUKS },
  'luks with a data file': { 'cluster-size': 65_536, 'data-file': 'data', encrypt: LUKS },
  'luks in version 2': { 'cluster-size': 16_384, version: 'v2', encrypt: LUKS },
  aes: { 'cluster-size': 65_536, encrypt: AES },
};
const FILES = ['raw', 'raw luks', 'raw luks2'] as const;
type File = (typeof FILES)[number];
const isFile = (kind: string): kind is File => FILES.some((file) => file === kind);

const layer = fc.constantFrom(...Object.keys(LAYERS));
const image = fc.constantFrom(...Object.keys(LAYERS), ...FILES);

/** An engine and images whose keys it is given. */
class Scene {
  engine!: Engine;
  readonly #kinds = new Map<string, string>();

  constructor(
    readonly host: MemoryHost,
    readonly seed: number,
  ) {}

  async start(): Promise<void> {
    this.engine = await createEngine({ host: this.host, lanes: 0 });
    await this.run('object-add', { 'qom-type': 'secret', id: 's', data: LUKS_PASSWORD });
  }

  run(command: string, args: Arguments): Promise<unknown> {
    const plain = Object.assign(Object.create(null) as JsonObject, args);
    return Promise.resolve(
      runCommand(this.engine, { command, args: plain, outOfBand: false }),
    );
  }

  async make(name: string, kind: string, backing?: string): Promise<void> {
    this.#kinds.set(name, kind);
    if (isFile(kind)) return this.#makeFile(name, kind);
    const options = LAYERS[kind] ?? {};
    const below = backing === undefined ? {} : { 'backing-file': backing };
    const data = options['data-file'] === undefined ? {} : { 'data-file': `${name}.data` };
    await createOn(this.host, name, { ...options, ...data, ...below, size: SIZE });
  }

  async #makeFile(name: string, kind: File): Promise<void> {
    const rest = new Uint8Array(SIZE);
    if (kind === 'raw') this.host.putFile(name, rest);
    else if (kind === 'raw luks') this.host.putFile(name, await luksFile(SIZE));
    else {
      const head = await luks2Head({ sectorBytes: 4096, vectorOffset: 0 });
      this.host.putFile(name, Buffer.concat([head, rest]));
    }
  }

  async open(name: string, backing: string | null = null): Promise<void> {
    const kind = this.#kinds.get(name) ?? '';
    const node = { 'node-name': name, file: { driver: 'file', filename: name } };
    if (kind === 'raw') return void (await this.run('blockdev-add', { driver: 'raw', ...node }));
    if (isFile(kind)) {
      return void (await this.run('blockdev-add', { driver: 'luks', ...SECRET, ...node }));
    }
    const { encrypt, ...rest } = LAYERS[kind] ?? {};
    const format = encrypt?.format === 'qcow' ? 'aes' : 'luks';
    const key = encrypt === undefined ? {} : { encrypt: { format, ...SECRET } };
    const data =
      rest['data-file'] === undefined
        ? {}
        : { 'data-file': { driver: 'file', filename: `${name}.data` } };
    const base = { driver: 'qcow2', discard: 'unmap', backing };
    await this.run('blockdev-add', { ...base, ...key, ...data, ...node });
  }

  async scribble(name: string, count: number): Promise<void> {
    const random = new SeededRandom(this.seed + name.length);
    const node = this.engine.graph.require(name);
    const user = await this.engine.graph.attach(node, 'scribble', READ_WRITE);
    for (let each = 0; each < count; each += 1) {
      const offset = random.below(SIZE / 512) * 512;
      const bytes = new Uint8Array(Math.min(SIZE - offset, (1 + random.below(300)) * 512));
      random.fill(bytes);
      await user.write(offset, bytes);
    }
    await user.detach();
  }

  /** The guest acts until the job is done, and completes it when it is ready. */
  async actWhile(guest: Guest): Promise<void> {
    const random = new SeededRandom(this.seed);
    let completed = false;
    for (let count = 0; count < 4000; count += 1) {
      const [job] = (await this.run('query-jobs', {})) as { status: string; error?: string }[];
      if (job === undefined) return;
      if (job.status === 'concluded') {
        expect(job.error).toBeUndefined();
        return;
      }
      if (job.status === 'ready' && !completed && count > 20) {
        completed = true;
        await this.run('job-complete', { id: 'j' });
      }
      if (count < 200) await guest.act(random);
      await turns(random.below(3));
    }
    throw new Error('the job does not end');
  }
}

async function played(
  seed: number,
  act: (scene: Scene) => Promise<readonly [string, Uint8Array, string | null][]>,
): Promise<void> {
  const scene = new Scene(new MemoryHost({ seed }), seed);
  await scene.start();
  const wanted = await act(scene);
  for (const node of scene.engine.graph.nodes) {
    if (node.driver.name !== 'qcow2') continue;
    await node.flush();
    expect(await node.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
  }
  await scene.engine.close();
  await scene.start();
  for (const [name, bytes, backing] of wanted) {
    if (backing !== null && scene.engine.graph.find(backing) === null) await scene.open(backing);
    await scene.open(name, backing);
    const got = await readAll(scene.engine.graph.require(name));
    expect(firstDifference(got.subarray(0, SIZE), bytes.subarray(0, SIZE)), name).toBe(-1);
  }
  await scene.engine.close();
}

async function guestOn(scene: Scene, name: string): Promise<Guest> {
  return Guest.attach(scene.engine, scene.engine.graph.require(name));
}

/** `top` over `base`, both with contents. */
async function makeTwo(scene: Scene, base: string, top: string): Promise<Guest> {
  await scene.make('base', base);
  await scene.make('top', top, 'base');
  await scene.open('base');
  await scene.scribble('base', 4);
  await scene.open('top', 'base');
  await scene.scribble('top', 3);
  return guestOn(scene, 'top');
}

describe('jobs on encrypted images', () => {
  it('stream takes in what a base of any kind holds', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), image, layer, (seed, base, top) =>
        played(seed, async (scene) => {
          const guest = await makeTwo(scene, base, top);
          await scene.run('block-stream', { 'job-id': 'j', device: 'top' });
          await scene.actWhile(guest);
          await guest.backend.detach();
          return [['top', guest.expected, null]];
        }),
      ),
      { numRuns: runs(2, 150) },
    );
  });

  it('commit puts the overlay into a base of any kind', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), image, layer, (seed, base, top) =>
        played(seed, async (scene) => {
          const guest = await makeTwo(scene, base, top);
          await scene.run('block-commit', { 'job-id': 'j', device: 'top' });
          await scene.actWhile(guest);
          await guest.backend.detach();
          return [['base', guest.expected, null]];
        }),
      ),
      { numRuns: runs(2, 150) },
    );
  });

  it('mirror moves a guest from any image to any other', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(), image, layer, image, fc.constantFrom('background', 'write-blocking'),
        (seed, base, top, target, mode) =>
          played(seed, async (scene) => {
            const guest = await makeTwo(scene, base, top);
            await scene.make('target', target);
            await scene.open('target');
            const options = { device: 'top', target: 'target', sync: 'full', 'copy-mode': mode };
            await scene.run('blockdev-mirror', { 'job-id': 'j', ...options });
            await scene.actWhile(guest);
            await guest.backend.detach();
            return [['target', guest.expected, null]];
          }),
      ),
      { numRuns: runs(2, 150) },
    );
  });

  it('compressed, nothing is begun: there is no place for what is not encrypted', async () => {
    const scene = new Scene(new MemoryHost(), 1);
    await scene.start();
    for (const [name, kind] of [['top', 'plain'], ['target', 'luks']] as const) {
      await scene.make(name, kind);
      await scene.open(name);
    }
    const refusal = 'Compression and encryption not supported at the same time';
    const options = { 'job-id': 'j', device: 'top', target: 'target', sync: 'full' };
    await expect(scene.run('blockdev-backup', { ...options, compress: true })).rejects.toThrow(
      refusal,
    );
    const filter = { driver: 'compress', 'node-name': 'filter', file: 'target' };
    await expect(scene.run('blockdev-add', filter)).rejects.toThrow(refusal);
    expect(await scene.run('query-jobs', {})).toEqual([]);
    await scene.engine.close();
  });

  it('backup holds its moment, whatever it is put into', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), image, layer, image, (seed, base, top, target) =>
        played(seed, async (scene) => {
          const guest = await makeTwo(scene, base, top);
          await scene.make('target', target);
          await scene.open('target');
          const moment = guest.expected.slice();
          const options = { device: 'top', target: 'target', sync: 'full' };
          await scene.run('blockdev-backup', { 'job-id': 'j', ...options });
          await scene.actWhile(guest);
          await guest.backend.detach();
          return [
            ['target', moment, null],
            ['top', guest.expected, 'base'],
          ];
        }),
      ),
      { numRuns: runs(2, 150) },
    );
  });
});
