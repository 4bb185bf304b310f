// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write of a qcow2 image above a preallocating node, or stored by a
// quorum. Each file that is left is an image of its own: it checks without an error and holds all
// that was flushed.
import { expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { writeRequest } from '../../src/block/index.js';
import type { Driver, Graph, NodeOptions } from '../../src/block/index.js';
import { preallocate } from '../../src/drivers/filters/preallocate/index.js';
import { quorum } from '../../src/drivers/filters/quorum/index.js';
import { qcow2Driver } from '../../src/drivers/formats/qcow2/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { Host, MemoryHost } from '../../src/host/index.js';
import { graphOn, makeFile, pattern, READ_WRITE } from '../helpers/graph.js';

const KIB = 1024;
const SIZE = 1024 * KIB;
const PIECE = 3 * KIB;

function graphFor(host: Host): Graph {
  return graphOn(host, [preallocate, quorum, qcow2Driver] as unknown as Driver<never>[]);
}

/** An empty image, durable, at each of the paths. */
async function makeImages(disk: CrashDisk, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    await makeFile(disk, path, 0);
    const graph = graphFor(disk);
    const file = await graph.open({ driver: 'file', 'node-name': 'f', filename: path });
    const maker = await graph.attach(file, 'create', { taken: 11, shared: 15 });
    const context = { host: disk, node: () => Promise.resolve(file) };
    await qcow2Driver.create?.(context, { file: 'f', size: SIZE, 'cluster-size': 4 * KIB });
    await maker.detach();
    await graph.closeAll();
  }
}

interface Cut {
  readonly survivor: MemoryHost;
  /** Pieces that were flushed when the power went. */
  readonly flushed: number;
}

async function checkCut({ survivor, flushed }: Cut, path: string): Promise<void> {
  const graph = graphFor(survivor);
  const node = await graph.open({ driver: 'qcow2', file: { driver: 'file', filename: path } });
  const report = await node.check('none');
  expect({ messages: report.messages, corruptions: report.corruptions }).toMatchObject({
    corruptions: 0,
  });
  const user = await graph.attach(node, 'reader', READ_WRITE);
  for (let index = 0; index < flushed; index += 1) {
    const bytes = new Uint8Array(PIECE);
    await user.read(offsetOf(index), bytes);
    expect(Buffer.compare(bytes, pattern(PIECE, index))).toBe(0);
  }
  await user.detach();
  await graph.closeAll();
}

/** Pieces lie apart, so that each takes new clusters. */
const offsetOf = (index: number): number => ((index * 7) % 30) * 32 * KIB + 512;

const file = (filename: string): NodeOptions => ({ driver: 'file', filename });

it.each([
  ['a preallocating node', ['/a'], { driver: 'preallocate', 'prealloc-size': 256 * KIB }],
  ['a quorum', ['/a', '/b'], { driver: 'quorum', 'vote-threshold': 2 }],
] as const)('below qcow2, what %s stores outlives a power cut', async (_, paths, options) => {
  const disk = new CrashDisk({ seed: 5 });
  await makeImages(disk, paths);
  const random = new SeededRandom(9);
  const cuts: Cut[] = [];
  let flushed = 0;
  disk.onWrite = () => {
    for (let subset = 0; subset < 2; subset += 1) {
      cuts.push({ survivor: disk.afterPowerLoss(random), flushed });
    }
  };
  const graph = graphFor(disk);
  const children =
    options.driver === 'quorum' ? { children: paths.map(file) } : { file: file(paths[0]) };
  const node = await graph.open({ driver: 'qcow2', file: { ...options, ...children } });
  const user = await graph.attach(node, 'guest', READ_WRITE);
  for (let index = 0; index < 24; index += 1) {
    await node.write(writeRequest(offsetOf(index), pattern(PIECE, index)));
    if (index % 4 !== 3) continue;
    await user.flush();
    flushed = index + 1;
  }
  await user.detach();
  await graph.closeAll();
  disk.onWrite = null;
  cuts.push({ survivor: disk.durable(), flushed });
  expect(cuts.length).toBeGreaterThan(60);
  for (const cut of cuts) for (const path of paths) await checkCut(cut, path);
});
