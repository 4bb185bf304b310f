// SPDX-License-Identifier: Apache-2.0
// Requests side by side that share clusters and subclusters but no byte: each is there afterwards,
// and nothing else has changed, with standard and extended L2 entries, over a backing file or none.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { discardRequest, RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import type { Request } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const CLUSTER = 65_536;
const SIZE = 3 * CLUSTER - 1536;
const ROUNDS = 12;
const RUNS = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? 15 : 1000;

interface Setting {
  readonly extended: boolean;
  readonly backed: boolean;
  readonly seed: number;
}

const settings: fc.Arbitrary<Setting> = fc.record({
  extended: fc.boolean(),
  backed: fc.boolean(),
  seed: fc.nat(),
});

type Work = (request: Request) => unknown;

/** The file does what it is told at some time between the call and its answer. */
function makeLate({ node }: OpenedImage, random: SeededRandom): void {
  const file = node.image.file as unknown as Record<'read' | 'write', Work>;
  const wait = async (): Promise<void> => {
    for (let turns = random.below(40); turns > 0; turns -= 1) await Promise.resolve();
  };
  for (const name of ['read', 'write'] as const) {
    const work = file[name].bind(file);
    const late = async (request: Request): Promise<void> => {
      await wait();
      await work(request);
      await wait();
    };
    const value = (request: Request) => (random.chance(0.7) ? late(request) : work(request));
    Object.defineProperty(file, name, { value });
  }
}

/** Starts a request on the range; the model holds what it leaves. */
async function begin(
  { node }: OpenedImage,
  range: { readonly offset: number; readonly length: number },
  { random, model }: { readonly random: SeededRandom; readonly model: Uint8Array },
): Promise<void> {
  const { offset, length } = range;
  const kind = random.below(8);
  if (kind < 4) {
    const data = new Uint8Array(length);
    random.fill(data);
    model.set(data, offset);
    await node.write(writeRequest(offset, data));
  } else if (kind < 7) {
    model.fill(0, offset, offset + length);
    const flags = kind === 4 ? RequestFlag.mayUnmap : 0;
    await node.writeZeroes(zeroRequest(offset, length, flags));
  } else {
    const start = Math.ceil(offset / CLUSTER) * CLUSTER;
    const reach = offset + length;
    const end = reach === SIZE ? reach : reach - (reach % CLUSTER);
    if (end > start) model.fill(0, start, end);
    await node.discard(discardRequest(offset, length));
  }
}

async function play({ extended, backed, seed }: Setting): Promise<void> {
  const random = new SeededRandom(seed);
  const host = new MemoryHost({ seed });
  const options = { size: SIZE, 'cluster-size': CLUSTER, 'extended-l2': extended };
  await createOn(host, '/image', options);
  const model = new Uint8Array(SIZE);
  const backing = new Uint8Array(2 * CLUSTER);
  random.fill(backing);
  if (backed) model.set(backing);
  const behind = backed ? backingNode(backing, () => random.chance(0.5)) : null;
  const image = await openOn(host, '/image', behind);
  makeLate(image, random);
  for (let round = 0; round < ROUNDS; round += 1) {
    const requests: Promise<void>[] = [];
    for (let at = 512 * random.below(40); at < SIZE; ) {
      const most = random.chance(0.2) ? 80 : 6;
      const length = Math.min(SIZE - at, 512 * (1 + random.below(most)));
      requests.push(begin(image, { offset: at, length }, { random, model }));
      at += length + 512 * random.below(random.chance(0.5) ? 1 : 30);
    }
    if (random.chance(0.3)) requests.push(Promise.resolve(image.node.flush()));
    await Promise.all(requests);
    expect(Buffer.compare(await image.read(0, SIZE), model)).toBe(0);
  }
  await image.node.close();
  const result = await checkBytes(host.fileContents('/image'));
  expect(result).toMatchObject({ corruptions: 0, leaks: 0 });
}

describe('requests on neighbouring sectors', () => {
  it('leave what each of them says', async () => {
    await fc.assert(fc.asyncProperty(settings, play), { numRuns: RUNS });
  }, 60_000);
});
