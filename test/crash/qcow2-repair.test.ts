// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write of a repair, for each kind of broken image: what could be read
// reads as before, whatever of the unsynced writes is there, and a second repair ends where one
// that nobody interrupted does.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import type { CheckResult } from '../../src/block/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { BROKEN_CLUSTER, BROKEN_KINDS, baseImages, broken } from '../helpers/broken-images.js';
import type { BaseImage } from '../helpers/broken-images.js';
import { openOn } from '../helpers/qcow2-node.js';
import { someOf } from '../helpers/seeds.js';

const PATH = '/image';
const SUBSETS = 2;
/** Here guest data lies on a table, whose flags a repair turns. */
const SHOWS_TABLES = new Set(['data-on-its-table', 'data-on-l1']);
const CASES = BROKEN_KINDS.flatMap((kind) =>
  (['all', 'leaks'] as const).map((mode) => ({ ...kind, kind, mode })),
);

let cuts = 0;
let sound: Readonly<Record<BaseImage, Uint8Array>>;

/** Each cluster that the images may have, and null where it cannot be read. */
async function viewOf(host: MemoryHost): Promise<(string | null)[]> {
  const image = await openOn(host, PATH, null, { readOnly: true }).catch(() => null);
  if (image === null) return [];
  const view: (string | null)[] = [];
  const half = image.node.length / 2;
  for (const start of [0, half]) {
    for (let at = start; at < start + 24 * 4 * BROKEN_CLUSTER; at += BROKEN_CLUSTER) {
      const bytes = await image.read(at, BROKEN_CLUSTER).catch(() => null);
      view.push(bytes && Buffer.from(bytes).toString('latin1'));
    }
  }
  await image.node.close();
  return view;
}

/** What is found after a repair; null: it is refused or gives up. */
async function repair(host: MemoryHost, mode: 'leaks' | 'all'): Promise<CheckResult | null> {
  try {
    const { node } = await openOn(host, PATH, null, { repairs: true });
    await node.check(mode);
    const result = await node.check('none');
    await node.close();
    return result;
  } catch {
    return null;
  }
}

const errorsOf = (result: CheckResult | null): unknown =>
  result && [result.corruptions, result.leaks, result.checkErrors, result.failure];

describe('a power cut while an image is repaired', () => {
  beforeAll(async () => {
    sound = await baseImages();
  });

  afterAll(() => expect(cuts).toBeGreaterThan(20));

  it.each(someOf(CASES, 3))('$mode of $name: nothing is worse', async ({ kind, mode }) => {
    const disk = new CrashDisk({ seed: 7 });
    disk.putFile(PATH, broken(sound[kind.base], kind));
    const before = await viewOf(disk);
    const random = new SeededRandom(7);
    const survivors: MemoryHost[] = [];
    disk.onWrite = () => {
      for (let each = 0; each < SUBSETS; each += 1) {
        survivors.push(disk.afterPowerLoss(random));
      }
    };
    const whole = await repair(disk, mode);
    disk.onWrite = null;
    cuts += survivors.length;
    for (const survivor of [...survivors, disk]) {
      if (!SHOWS_TABLES.has(kind.name)) {
        const view = await viewOf(survivor);
        const worse = before.findIndex((bytes, at) => bytes !== null && view[at] !== bytes);
        expect(worse).toBe(-1);
      }
      const again = await repair(survivor, mode);
      expect(errorsOf(again)).toEqual(errorsOf(whole));
    }
  });
});
