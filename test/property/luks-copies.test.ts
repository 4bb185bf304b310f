// SPDX-License-Identifier: Apache-2.0
// Encrypted images are copied like any other: in lanes and through the nodes, from and to what is
// encrypted, with guests that write meanwhile.
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { copyImage } from '../../src/block/copy/index.js';
import type { LaneExecutor } from '../../src/block/copy/index.js';
import type { Node } from '../../src/block/index.js';
import { startMirror } from '../../src/jobs/index.js';
import { makeFile } from '../helpers/graph.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeStage,
  openImage,
  readAll,
  scribble,
  SUBCLUSTERED,
  turns,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { luksHead } from '../helpers/luks.js';
import { luks2Head } from '../helpers/luks2-image.js';
import { createOn } from '../helpers/qcow2-create.js';
import type { CreateOptions } from '../helpers/qcow2-create.js';
import { runs } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';

const SIZE = 3 * 2 ** 18 + 512;

let heads: Readonly<Record<'luks' | 'luks2' | 'luks2 of long sectors', Uint8Array>>;
beforeAll(async () => {
  heads = {
    luks: await luksHead(),
    luks2: await luks2Head({ sectorBytes: 512, vectorOffset: 0 }),
    'luks2 of long sectors': await luks2Head({ sectorBytes: 4096, vectorOffset: 3 }),
  };
});

/** A stage and how many steps with ciphers its lanes were given. */
function watchedStage(seed: number): {
  readonly stage: Stage;
  readonly encryptedSteps: () => number;
} {
  let steps = 0;
  const lanes = (real: LaneExecutor): LaneExecutor => ({
    width: real.width,
    run(batch, owner) {
      if ((batch.task.ciphers ?? []).length > 0) steps += batch.task.steps.length;
      return real.run(batch, owner);
    },
    warmUp: () => real.warmUp(),
    close: () => real.close(),
  });
  return { stage: makeStage({ seed, lanes }), encryptedSteps: () => steps };
}

const RAW = ['raw', 'luks', 'luks2', 'luks2 of long sectors'] as const;
const ENCRYPTED = { format: 'luks', 'key-secret': 's', 'iter-time': 0n } as const;
/** qcow2 images, by how they are made. */
const QCOW2: Readonly<Record<string, Omit<CreateOptions, 'size'>>> = {
  qcow2: { 'cluster-size': 65_536 },
  'qcow2 with AES': {
    'cluster-size': 4096,
    encrypt: { format: 'qcow', 'key-secret': 's' },
  },
  'qcow2 with LUKS': { 'cluster-size': 512, encrypt: ENCRYPTED },
  'qcow2 with LUKS, in version 2': { 'cluster-size': 16_384, version: 'v2', encrypt: ENCRYPTED },
  'qcow2 with LUKS and subclusters': {
    'cluster-size': SUBCLUSTERED,
    'extended-l2': true,
    encrypt: ENCRYPTED,
  },
  'qcow2 with LUKS and a data file': {
    'cluster-size': 65_536,
    'data-file': 'data',
    encrypt: ENCRYPTED,
  },
};
const KINDS = [...RAW, ...Object.keys(QCOW2), 'qcow2 in luks', 'luks in qcow2'];
/** Goes through the nodes where clusters of the image below have to be linked. */
const NOT_IN_LANES = /in qcow2/;
/** Header and payload of a LUKS image, with room for the metadata of one within it. */
const PAYLOAD = 2 ** 20 + 2 ** 19;

/** A new node; zeroes, or what a payload that was never written reads as. */
async function makeNode(stage: Stage, kind: string, name: string): Promise<Node> {
  const { graph, host } = stage;
  const filename = `${name}.file`;
  const file = { driver: 'file', filename };
  const luks = { driver: 'luks', 'key-secret': 's', 'node-name': name };
  if (kind === 'raw') {
    await makeFile(host, filename, SIZE);
    return graph.open({ driver: 'raw', file, 'node-name': name });
  }
  if (kind === 'qcow2 in luks') {
    await makeEmptyLuks(stage, filename, heads.luks);
    await graph.open({ ...luks, file, 'node-name': `${name}-file` });
    await createImage(stage, { name, size: SIZE, clusterSize: 4096 });
    await fill(stage, `${name}-file`, host.fileContents(`${name}.qcow2`).subarray(0, SIZE));
    return graph.open({ driver: 'qcow2', file: `${name}-file`, 'node-name': name });
  }
  if (kind === 'luks in qcow2') {
    await createOn(host, filename, { size: heads.luks.length + PAYLOAD });
    await graph.open({ driver: 'qcow2', file, 'node-name': `${name}-file` });
    await fill(stage, `${name}-file`, heads.luks);
    return graph.open({ ...luks, file: `${name}-file` });
  }
  const options = QCOW2[kind];
  if (options !== undefined) return makeQcow2(stage, { name, options });
  await makeEmptyLuks(stage, filename, heads[kind as keyof typeof heads]);
  return graph.open({ ...luks, file });
}

async function makeQcow2(
  { graph, host }: Stage,
  { name, options }: { readonly name: string; readonly options: Omit<CreateOptions, 'size'> },
): Promise<Node> {
  const { encrypt, ...rest } = options;
  const data = rest['data-file'] === undefined ? {} : { 'data-file': `${name}.data` };
  await createOn(host, `${name}.file`, { ...options, ...data, size: SIZE });
  const format = encrypt?.format === 'qcow' ? 'aes' : 'luks';
  return graph.open({
    driver: 'qcow2',
    'node-name': name,
    file: { driver: 'file', filename: `${name}.file` },
    ...(encrypt === undefined ? {} : { encrypt: { format, 'key-secret': 's' } }),
    ...('data-file' in data
      ? { 'data-file': { driver: 'file', filename: `${name}.data` } }
      : {}),
  });
}

async function fill({ graph }: Stage, name: string, bytes: Uint8Array): Promise<void> {
  const user = await graph.attach(graph.require(name), 'fill', { taken: 3, shared: 15 });
  await user.write(0, bytes);
  await user.detach();
}

/** The payload is a hole. */
async function makeEmptyLuks({ host }: Stage, path: string, head: Uint8Array): Promise<void> {
  const file = await host.createFile(path);
  await file.write(head, 0);
  await file.truncate(head.length + PAYLOAD);
  await file.close();
}

function keepLanesAway(node: Node): void {
  node.addObserver({ beforeWrite: () => undefined });
}

describe('copies of encrypted images', () => {
  it('hold the same bytes, in lanes and through the nodes', async () => {
    const kind = fc.constantFrom(...KINDS);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(), kind, kind, fc.boolean(), fc.boolean(), fc.constantFrom(0, 512, 4096, 65_536),
        async (seed, from, to, over, away, zeroGranularity) => {
          const { stage, encryptedSteps } = watchedStage(seed);
          const { graph, jobs } = stage;
          const below = await makeNode(stage, from, 'below');
          await scribble(stage, below, { seed, count: 6 });
          let source = below;
          if (over) {
            await createImage(stage, { name: 'top', size: below.length, clusterSize: 4096 });
            source = await openImage(stage, 'top', { backing: 'below' });
            await scribble(stage, source, { seed: seed + 1, count: 4 });
          }
          const target = await makeNode(stage, to, 'target');
          if (away) keepLanesAway(target);
          const size = SIZE - (seed % 2) * 512;
          const wanted = (await readAll(source)).subarray(0, Math.min(source.length, size));
          const [reader, writer] = [
            await graph.attach(source, 'source', { taken: 1, shared: 15 }),
            await graph.attach(target, 'target', { taken: 3, shared: 15 }),
          ];
          const failure = await copyImage(jobs.engine, graph.clock, {
            source: reader,
            target: writer,
            length: wanted.length,
            unit: target.info.clusterSize ?? 65_536,
            zeroGranularity,
            targetIsZero: to === 'raw' || to in QCOW2,
          });
          expect(failure).toBeNull();
          const got = (await readAll(target)).subarray(0, wanted.length);
          expect(firstDifference(got, wanted)).toBe(-1);
          const encrypted = [from, to].some((each) => /luks|AES|LUKS/.test(each));
          const inLanes = ![from, to].some((each) => NOT_IN_LANES.test(each));
          // A batch that ends within a sector goes through the nodes.
          const isWhole = size % 4096 === 0 || ![from, to].some((each) => /long/.test(each));
          if (!away && encrypted && inLanes && isWhole) expect(encryptedSteps()).toBeGreaterThan(0);
          await reader.detach();
          await writer.detach();
          await graph.closeAll();
          await jobs.engine.close();
        },
      ),
      { numRuns: runs(8, 300) },
    );
  });

  it('get their zeroes encrypted in lanes, and nothing else changes', async () => {
    const { stage, encryptedSteps } = watchedStage(5);
    const target = await makeNode(stage, 'luks2', 'target');
    const user = await stage.graph.attach(target, 'fill', { taken: 3, shared: 15 });
    const wanted = new Uint8Array(target.length).fill(9);
    await user.write(0, wanted);
    const session = stage.jobs.engine.open({
      source: user, target: user, unit: 512, zeroGranularity: 512,
    });
    expect(await session.zero(512, SIZE)).toBeNull();
    wanted.fill(0, 512, 512 + SIZE);
    expect(encryptedSteps()).toBeGreaterThan(0);
    expect(await session.zero(SIZE + 1024, 100), 'part of a sector').toBeNull();
    wanted.fill(0, SIZE + 1024, SIZE + 1124);
    expect(firstDifference(await readAll(target), wanted)).toBe(-1);
  });

  it('are not read in lanes where a write changes more of a sector than is told', async () => {
    for (const [cbc, sectorBytes, isPlanned] of [
      [true, 512, true], [true, 4096, false], [false, 4096, true],
    ] as const) {
      const { stage } = watchedStage(1);
      const head = await luks2Head({ sectorBytes, vectorOffset: 0, cbc });
      await makeEmptyLuks(stage, 'image', head);
      const file = { driver: 'file', filename: 'image' };
      const node = await stage.graph.open({ driver: 'luks', 'key-secret': 's', file });
      const bytes = Buffer.alloc(8192, 'text');
      const user = await stage.graph.attach(node, 'fill', { taken: 3, shared: 15 });
      await user.write(0, bytes);
      expect((await readAll(node)).subarray(0, 8192)).toEqual(Uint8Array.from(bytes));
      expect((await node.planExtents(0, 8192)) !== null).toBe(isPlanned);
      await user.detach();
      await stage.graph.closeAll();
    }
  });

  it('are compressed like any other', async () => {
    const { stage, encryptedSteps } = watchedStage(3);
    const source = await makeNode(stage, 'luks', 'source');
    const user = await stage.graph.attach(source, 'fill', { taken: 3, shared: 15 });
    await user.write(0, new Uint8Array(SIZE).fill(5));
    await createImage(stage, { name: 'target', size: source.length });
    const target = await openImage(stage, 'target');
    const writer = await stage.graph.attach(target, 'target', { taken: 3, shared: 15 });
    const failure = await copyImage(stage.jobs.engine, stage.graph.clock, {
      source: user, target: writer, unit: 65_536, zeroGranularity: 65_536, compress: true,
    });
    expect(failure).toBeNull();
    expect(firstDifference(await readAll(target), await readAll(source))).toBe(-1);
    expect(encryptedSteps()).toBeGreaterThan(0);
  });
});

async function underGuest(
  seed: number,
  kind: string,
  copy: (stage: Stage, guest: Guest, act: () => Promise<void>) => Promise<Uint8Array>,
): Promise<void> {
  const { stage } = watchedStage(seed);
  const source = await makeNode(stage, kind, 'source');
  await scribble(stage, source, { seed, count: 5 });
  const target = await makeNode(stage, kind, 'target');
  const guest = await Guest.attach(stage, source);
  const random = new SeededRandom(seed);
  const wanted = await copy(stage, guest, () => guest.act(random));
  const got = (await readAll(target)).subarray(0, wanted.length);
  expect(firstDifference(got, wanted.subarray(0, got.length))).toBe(-1);
}

describe('while a guest writes', () => {
  const kinds = fc.constantFrom(...KINDS.filter((kind) => !['raw', 'qcow2'].includes(kind)));

  it('a mirror to an encrypted image is its source at the end', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), kinds, fc.boolean(), async (seed, kind, blocking) => {
        await underGuest(seed, kind, async ({ jobs }, guest, act) => {
          const job = await startMirror(jobs, {
            'job-id': 'm', device: 'source', target: 'target', sync: 'full',
            'copy-mode': blocking ? 'write-blocking' : 'background',
          });
          for (let turn = 0; job.status !== 'ready' && turn < 20_000; turn += 1) {
            await act();
            await turns(1);
          }
          expect(job.info()).toMatchObject({ status: 'ready' });
          await act();
          await job.cancelBlock(false);
          while (!['concluded', 'null'].includes(job.status)) await turns(1);
          return guest.expected;
        });
      }),
      { numRuns: runs(3, 60) },
    );
  });

  it('a backup holds the moment it began', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), kinds, async (seed, kind) => {
        await underGuest(seed, kind, async ({ jobs }, guest, act) => {
          const job = await startBackup(jobs, {
            'job-id': 'b', device: 'source', target: 'target', sync: 'full', 'auto-dismiss': false,
          });
          const moment = guest.expected.slice();
          while (job.status !== 'concluded') {
            await act();
            await turns(1);
          }
          expect(job.info().error).toBeUndefined();
          return moment;
        });
      }),
      { numRuns: runs(3, 60) },
    );
  });
});
