// SPDX-License-Identifier: Apache-2.0
// Keyslots of an open image change, and the power is cut, a write or a flush fails, or the job is
// cancelled, at each write of it: what was valid is valid or cleanly erased, never the last key is
// lost, memory and disk agree, and others are let in again.
import { beforeAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { CrashDisk, MemoryHost } from '../../src/host/index.js';
import { KeyslotStage, slotsIn } from '../helpers/keyslot-stage.js';
import type { Members } from '../helpers/keyslot-stage.js';
import { makeLuks } from '../helpers/luks-images.js';
import { runs, someOf } from '../helpers/seeds.js';

interface Change {
  readonly name: string;
  readonly before: readonly (string | undefined)[];
  readonly wish: Members;
  readonly force?: true;
  /** A second change behind it. */
  readonly next?: Members;
  readonly after: readonly string[];
}

const NONE = 'erased';
function eight(...first: string[]): string[] {
  return [...first, ...Array<string>(8).fill(NONE)].slice(0, 8);
}

const CHANGES: readonly Change[] = [
  {
    name: 'one more',
    before: ['one'],
    wish: { state: 'active', 'new-secret': 'new' },
    after: eight('one', 'new'),
  },
  {
    name: 'one more, across the border of two sectors',
    before: ['one', 'two'],
    wish: { state: 'active', 'new-secret': 'new', keyslot: 6 },
    after: eight('one', 'two', NONE, NONE, NONE, NONE, 'new'),
  },
  {
    name: 'all of one password erased',
    before: ['one', 'two', undefined, 'two'],
    wish: { state: 'inactive', 'old-secret': 'two' },
    after: eight('one'),
  },
  {
    name: 'one replaced by force',
    before: ['one', 'two'],
    wish: { state: 'active', 'new-secret': 'new', keyslot: 1 },
    force: true,
    after: eight('one', 'new'),
  },
  {
    name: 'the only one replaced by force',
    before: ['one'],
    wish: { state: 'active', 'new-secret': 'new', keyslot: 0 },
    force: true,
    after: eight('new'),
  },
  {
    name: 'one added in the second sector, then the old one erased',
    before: ['one'],
    wish: { state: 'active', 'new-secret': 'new', keyslot: 7 },
    next: { state: 'inactive', 'old-secret': 'one' },
    after: eight(NONE, NONE, NONE, NONE, NONE, NONE, NONE, 'new'),
  },
  {
    name: 'the one across the border of two sectors erased',
    before: ['one', undefined, undefined, undefined, undefined, undefined, 'two', 'two'],
    wish: { state: 'inactive', keyslot: 6 },
    after: eight('one', NONE, NONE, NONE, NONE, NONE, NONE, 'two'),
  },
  {
    name: 'all erased by force',
    before: ['one', 'one'],
    wish: { state: 'inactive', 'old-secret': 'one' },
    force: true,
    after: eight(),
  },
];
/** Faults and cancels are of a single change. */
const SINGLE = CHANGES.slice(0, 5);

const CUTS = runs(1, 12);
/** Overwriting is long and all alike. */
const isTold = (index: number): boolean => index < 6 || index % 42 < 5;

function requireSound({ before, after }: Change, now: readonly string[]): void {
  expect(now).not.toContain('broken');
  if (after.some((slot) => slot !== NONE)) {
    expect(now.some((slot) => slot !== NONE)).toBe(true);
  }
  for (const [slot, is] of now.entries()) {
    const was = before[slot] ?? NONE;
    // A key that is only kept meanwhile lies in a keyslot that was free.
    const spare = was === NONE ? 'new' : NONE;
    expect([was, after[slot], NONE, spare], `keyslot ${slot}`).toContain(is);
    if (was === after[slot] && was !== NONE) expect(is, `keyslot ${slot}`).toBe(was);
  }
}

describe('keyslots of an open image', () => {
  const images = new Map<Change, Uint8Array>();
  beforeAll(async () => {
    for (const change of CHANGES) images.set(change, (await makeLuks(change.before)).bytes);
  });
  const imageOf = (change: Change): Uint8Array => images.get(change) as Uint8Array;

  const all = CHANGES.flatMap((change) =>
    (['luks', 'qcow2', 'apart'] as const).map((format) => ({ change, format, name: change.name })),
  );

  it.each(someOf(all, 2))('survive a power cut at every write, $format: $name', async (one) => {
    const { change, format } = one;
    const disk = new CrashDisk({ seed: 3 });
    const random = new SeededRandom(4);
    const stage = await new KeyslotStage(disk, format).start(imageOf(change));
    const survivors: MemoryHost[] = [];
    disk.onWrite = (index) => {
      if (!isTold(index)) return;
      survivors.push(disk.durable());
      for (let cut = 0; cut < CUTS; cut += 1) survivors.push(disk.afterPowerLoss(random));
    };
    expect(await stage.amend(change.wish, change.force)).toBeNull();
    if (change.next !== undefined) expect(await stage.amend(change.next)).toBeNull();
    disk.onWrite = null;
    expect(await stage.onDisk()).toEqual(change.after);
    expect(await stage.onDisk(disk.durable())).toEqual(change.after);
    expect(stage.isFree()).toBe(true);
    await stage.end();
    expect(survivors.length).toBeGreaterThan(5);
    for (const survivor of survivors) requireSound(change, await stage.onDisk(survivor));
  });

  const FAULTS = SINGLE.slice(1).flatMap((change) =>
    (['write', 'sync'] as const).flatMap((operation) =>
      [1, 2, 3, 4, 5, 20, 44, 45, 46].map((nth) => ({ change, operation, nth })),
    ),
  );

  it('are in memory as on disk when a write or a flush fails, and change again', async () => {
    for (const { change, operation, nth } of someOf(FAULTS, 11)) {
      const host = new MemoryHost({ seed: nth });
      const format = nth % 2 === 0 ? 'luks' : 'qcow2';
      const stage = await new KeyslotStage(host, format).start(imageOf(change));
      host.faults.add({ operation, nth, errno: 'EIO' });
      const where = `${change.name}, ${operation} ${nth}`;
      const error = await stage.amend(change.wish, change.force);
      host.faults.clear();
      const now = await stage.onDisk();
      requireSound(change, now);
      if (error === null) expect(now, where).toEqual(change.after);
      expect(stage.isFree(), where).toBe(true);
      const agree = (slots: readonly string[]): void =>
        expect(stage.inMemory(), where).toEqual(slots.map((slot) => slot !== NONE));
      // After a failed flush the file is not believed any more: then the image refuses.
      const secret = now.find((slot) => slot !== NONE);
      const refusal = await stage.amend({ state: 'active', 'new-secret': 'two', secret });
      if (operation === 'write' || error === null) expect(refusal, where).toBeNull();
      if (refusal === null) agree(await stage.onDisk());
      else expect(await stage.onDisk(), where).toEqual(now);
      await stage.end();
    }
  });

  it('are whole when the job is cancelled at any write', async () => {
    const writes = [0, 1, 2, 3, 20, 43, 44];
    const moments = SINGLE.flatMap((change) => writes.map((at) => ({ change, at })));
    for (const { change, at } of someOf(moments, 6)) {
      const disk = new CrashDisk({ seed: at });
      const stage = await new KeyslotStage(disk).start(imageOf(change));
      const first = disk.writeCount;
      const begun = stage.begin(change.wish, change.force);
      disk.onWrite = (index) => {
        if (index === first + at) void stage.engine.jobs.get('j')?.cancel();
      };
      const job = await begun;
      await job.ended;
      disk.onWrite = null;
      const now = await stage.onDisk();
      requireSound(change, now);
      expect(stage.inMemory()).toEqual(now.map((slot) => slot !== NONE));
      expect(job.info().error).toBe(job.cancelled ? 'Operation canceled' : undefined);
      // What had begun was brought to its end.
      const isOne = change.wish['old-secret'] === undefined;
      if (isOne) expect(now).toEqual(change.after);
      expect(stage.isFree()).toBe(true);
      await job.dismiss();
      await stage.end();
    }
  });

  it('change one after the other, and a drain waits for that', async () => {
    const [change] = CHANGES as readonly [Change];
    const stage = await new KeyslotStage(new MemoryHost({ seed: 1 })).start(imageOf(change));
    const jobs = [
      await stage.begin({ state: 'active', 'new-secret': 'two' }),
      await stage.begin({ state: 'active', 'new-secret': 'new' }, false, 'k'),
      await stage.begin({ state: 'inactive', keyslot: 0 }, false, 'm'),
    ];
    const section = await stage.engine.graph.drain([stage.engine.graph.require('l')]);
    expect(await stage.onDisk()).toEqual(eight(NONE, 'two', 'new'));
    section.end();
    for (const job of jobs) {
      await job.ended;
      expect(job.info()).toMatchObject({ status: 'concluded', type: 'amend' });
      expect(job.info().error).toBeUndefined();
    }
    expect(stage.isFree()).toBe(true);
    await stage.end();
  });

  it('stay as they are when the job is cancelled before it writes', async () => {
    const [change] = CHANGES as readonly [Change];
    const stage = await new KeyslotStage(new MemoryHost()).start(imageOf(change));
    const job = await stage.begin(change.wish);
    await job.cancel();
    await job.ended;
    expect(job.info().error).toBe('Operation canceled');
    expect(await stage.onDisk()).toEqual(eight('one'));
    await stage.end();
  });

  it('are those on disk, where somebody else has changed them since it was opened', async () => {
    const stage = await new KeyslotStage(new MemoryHost()).start((await makeLuks(['one'])).bytes);
    await stage.run('blockdev-add', {
      driver: 'luks', 'node-name': 'other', file: 'f', 'key-secret': 'one',
    });
    // `l` takes the file for itself, and there is another user of it.
    await expect(stage.begin({ state: 'active', 'new-secret': 'two' })).rejects.toThrow(
      "Permission conflict on node 'f': permissions 'consistent read' are both required by node " +
        "'other' (uses node 'f' as 'file' child) and unshared by node 'l'",
    );
    expect(stage.isFree()).toBe(true);
    expect(stage.engine.jobs.list()).toEqual([]);
    await stage.run('blockdev-del', { 'node-name': 'other' });
    const { bytes } = await makeLuks(['two', 'two']);
    stage.host.putFile('/b', bytes);
    const image = stage.host.fileContents('/a');
    const changed = await new KeyslotStage(new MemoryHost()).start(image);
    await changed.amend({ state: 'active', 'new-secret': 'two' });
    const file = await stage.host.openFile('/a', { readOnly: false });
    await file.write(changed.host.fileContents('/a'), 0);
    expect(await stage.amend({ state: 'active', 'new-secret': 'new' })).toBeNull();
    expect(await slotsIn(stage.host.fileContents('/a'))).toEqual(eight('one', 'two', 'new'));
    await file.write(bytes, 0);
    expect(await stage.amend({ state: 'active', 'new-secret': 'new' })).toBe(
      'LUKS header: it is not that of the volume any more which was opened',
    );
    await file.close();
    await changed.end();
    await stage.end();
  });
});
