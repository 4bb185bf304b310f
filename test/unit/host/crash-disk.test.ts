// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../../src/base/index.js';
import { CrashDisk, type HostFile, MemoryHost } from '../../../src/host/index.js';

const SECTOR = 512;

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

async function diskWithFile(seed?: number): Promise<{ disk: CrashDisk; file: HostFile }> {
  const disk = new CrashDisk(seed === undefined ? {} : { seed });
  disk.putFile('disk.img', filled(16 * SECTOR, 1));
  const file = await disk.openFile('disk.img', { readOnly: false });
  return { disk, file };
}

describe('power loss', () => {
  it('without a sync may lose everything, and keeps what was there before', async () => {
    const { disk, file } = await diskWithFile();
    await file.write(filled(SECTOR, 2), 0);
    await file.truncate(100 * SECTOR);
    expect(disk.durable().fileContents('disk.img')).toEqual(filled(16 * SECTOR, 1));
    expect(disk.fileContents('disk.img')).toHaveLength(100 * SECTOR);
  });

  it('loses nothing that was synced, whatever the choice', async () => {
    const { disk, file } = await diskWithFile(5);
    for (let round = 0; round < 8; round += 1) {
      await file.write(filled(3 * SECTOR, 10 + round), round * SECTOR);
    }
    await file.sync();
    const expected = disk.fileContents('disk.img');
    expect(disk.unsyncedChanges()).toEqual([]);
    for (let seed = 0; seed < 20; seed += 1) {
      const after = disk.afterPowerLoss(new SeededRandom(seed));
      expect(Buffer.compare(after.fileContents('disk.img'), expected)).toBe(0);
    }
  });

  it('a write that completed after the sync began is still at risk', async () => {
    const { disk, file } = await diskWithFile();
    await file.write(filled(SECTOR, 2), 0);
    const sync = file.sync();
    await file.write(filled(SECTOR, 3), SECTOR);
    await sync;
    expect(disk.unsyncedChanges()).toMatchObject([{ kind: 'write', offset: SECTOR }]);
    const contents = disk.durable().fileContents('disk.img');
    expect(contents[0]).toBe(2);
    expect(contents[SECTOR]).toBe(1);
  });

  it('a list keeps exactly those changes, in its order', async () => {
    const { disk, file } = await diskWithFile();
    await file.write(filled(SECTOR, 2), 0);
    await file.write(filled(SECTOR, 3), 0);
    await file.write(filled(SECTOR, 4), SECTOR);
    const swapped = disk.afterPowerLoss([1, 0]).fileContents('disk.img');
    expect([swapped[0], swapped[SECTOR]]).toEqual([2, 1]);
    const last = disk.afterPowerLoss([2]).fileContents('disk.img');
    expect([last[0], last[SECTOR]]).toEqual([1, 4]);
  });

  it('tears writes at sectors only: each sector is one of the versions it had', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.array(fc.record({ at: fc.nat(7000), length: fc.integer({ min: 1, max: 3000 }) }), {
          minLength: 1,
          maxLength: 8,
        }),
        async (seed, writes) => {
          const { disk, file } = await diskWithFile();
          const aligned = writes.map(({ at, length }) => ({
            sector: Math.floor(at / SECTOR),
            count: Math.ceil(length / SECTOR),
          }));
          const versions = Array.from({ length: 32 }, (_, at) => new Set([at < 16 ? 1 : 0]));
          for (const [index, { sector, count }] of aligned.entries()) {
            await file.write(filled(count * SECTOR, index + 2), sector * SECTOR);
            for (let at = sector; at < sector + count; at += 1) versions[at]?.add(index + 2);
          }
          const after = disk.afterPowerLoss(new SeededRandom(seed)).fileContents('disk.img');
          expect(after.length % SECTOR).toBe(0);
          for (let sector = 0; sector * SECTOR < after.length; sector += 1) {
            const bytes = after.subarray(sector * SECTOR, (sector + 1) * SECTOR);
            expect(new Set(bytes).size).toBe(1);
            expect(versions[sector]?.has(bytes[0] ?? -1)).toBe(true);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('by chance loses, keeps, tears and reorders', async () => {
    const { disk, file } = await diskWithFile();
    await file.write(filled(4 * SECTOR, 2), 0);
    await file.write(filled(4 * SECTOR, 3), 2 * SECTOR);
    const seen = new Set<string>();
    for (let seed = 0; seed < 300; seed += 1) {
      const after = disk.afterPowerLoss(new SeededRandom(seed)).fileContents('disk.img');
      seen.add([0, 1, 2, 3, 4, 5].map((sector) => after[sector * SECTOR]).join(''));
    }
    expect(seen).toContain('111111');
    expect(seen).toContain('223333');
    expect(seen).toContain('222233');
    expect(seen).toContain('113333');
    expect(seen.size).toBeGreaterThan(10);
  });

  it('can be taken at every write while the run goes on', async () => {
    const { disk, file } = await diskWithFile(3);
    const images: MemoryHost[] = [];
    disk.onWrite = (index) => {
      expect(index).toBe(images.length);
      images.push(disk.afterPowerLoss(new SeededRandom(index)));
    };
    for (let round = 0; round < 50; round += 1) {
      await file.write(filled(SECTOR, round), (round % 16) * SECTOR);
      if (round % 7 === 0) await file.sync();
    }
    expect(images).toHaveLength(50);
    expect(disk.writeCount).toBe(50);
    const reopened = await images[20]?.openFile('disk.img', { readOnly: false });
    await reopened?.write(filled(SECTOR, 99), 0);
    expect(disk.fileContents('disk.img')[0]).not.toBe(99);
  });

  it('zeroes and discards are at risk like writes, and huge ranges cost nothing', async () => {
    const { disk, file } = await diskWithFile();
    await file.truncate(2 ** 40);
    await file.writeZeroes(0, 2 ** 40, true);
    await file.discard(2 ** 39, 2 ** 39);
    for (let seed = 0; seed < 30; seed += 1) {
      const after = disk.afterPowerLoss(new SeededRandom(seed));
      const { size, allocatedBytes } = (await after.stat('disk.img')) ?? { size: 0 };
      expect([16 * SECTOR, 2 ** 40].includes(size) || size % SECTOR === 0).toBe(true);
      expect(allocatedBytes).toBeLessThan(2 ** 20);
    }
  });

  it('a failed sync makes nothing durable', async () => {
    const { disk, file } = await diskWithFile();
    disk.faults.add({ operation: 'sync', nth: 1, errno: 'EIO' });
    await file.write(filled(SECTOR, 2), 0);
    await expect(file.sync()).rejects.toMatchObject({ kind: 'io' });
    await expect(file.sync()).rejects.toMatchObject({ kind: 'io' });
    expect(disk.durable().fileContents('disk.img')[0]).toBe(1);
    const reopened = await disk.openFile('disk.img', { readOnly: false });
    await reopened.sync();
    expect(disk.durable().fileContents('disk.img')[0]).toBe(2);
  });

  it('a sync of one file leaves the others at risk', async () => {
    const { disk, file } = await diskWithFile();
    const other = await disk.createFile('other.img');
    await file.write(filled(SECTOR, 2), 0);
    await other.write(filled(SECTOR, 3), 0);
    await file.sync();
    expect(disk.durable().fileContents('other.img')).toHaveLength(0);
    expect(disk.durable().fileContents('disk.img')[0]).toBe(2);
  });
});

describe('a seed', () => {
  async function run(seed: number): Promise<string> {
    const disk = new CrashDisk({ seed });
    const trace: string[] = [];
    const file = await disk.createFile('disk.img');
    disk.onWrite = (index) => {
      const change = disk.unsyncedChanges().at(-1);
      trace.push(`${index}:${change?.offset}`);
      const after = disk.afterPowerLoss(new SeededRandom(seed + index));
      trace.push(Buffer.from(after.fileContents('disk.img')).toString('base64'));
    };
    const pending: unknown[] = [];
    for (let round = 0; round < 30; round += 1) {
      pending.push(file.write(filled(SECTOR, round), disk.random.below(16) * SECTOR));
      if (round % 9 === 8) pending.push(file.sync());
    }
    await Promise.all(pending);
    return trace.join();
  }

  it('replays a run exactly', async () => {
    expect(await run(42)).toBe(await run(42));
  });

  it('of another value gives another run', async () => {
    expect(await run(42)).not.toBe(await run(43));
  });

  it('makes some calls answer later, in another order than they came', async () => {
    const host = new MemoryHost({ seed: 1, laterChance: 0.5 });
    const file = await host.createFile('disk.img');
    const order: number[] = [];
    let later = 0;
    const calls = Array.from({ length: 40 }, (_, index) => {
      const result = file.write(filled(1, 1), index);
      if (result instanceof Promise) {
        later += 1;
        return result.then(() => void order.push(index));
      }
      return undefined;
    });
    await Promise.all(calls);
    expect(later).toBeGreaterThan(5);
    expect(later).toBeLessThan(35);
    expect(order).not.toEqual(order.toSorted((one, two) => one - two));
  });

  it('left out makes every call answer inline', async () => {
    const file = await new MemoryHost().createFile('disk.img');
    for (let index = 0; index < 100; index += 1) {
      expect(file.write(filled(1, 1), index)).toBeUndefined();
    }
  });
});

describe('a fault plan', () => {
  it('fails the nth call of an operation and no other', async () => {
    const faults = [{ operation: 'write', nth: 3, errno: 'ENOSPC' }] as const;
    const host = new MemoryHost({ faults });
    const file = await host.createFile('disk.img');
    await file.write(filled(10, 1), 0);
    await file.write(filled(10, 2), 10);
    expect(() => file.write(filled(10, 3), 20)).toThrow('No space left on device');
    await file.write(filled(10, 4), 30);
    expect(host.faults.count('write')).toBe(4);
    expect(Array.from(host.fileContents('disk.img').subarray(20, 30))).toEqual(Array(10).fill(0));
  });

  it('a lasting one fails all calls from the nth on, on the named file only', async () => {
    const host = new MemoryHost({
      seed: 9,
      faults: [{ operation: 'write', nth: 2, errno: 'EIO', path: 'b.img', lasting: true }],
    });
    const one = await host.createFile('a.img');
    const two = await host.createFile('b.img');
    await two.write(filled(1, 1), 0);
    for (let index = 0; index < 5; index += 1) {
      await one.write(filled(1, 1), index);
      await expect((async () => two.write(filled(1, 1), index))()).rejects.toMatchObject({
        kind: 'io',
        errno: 'EIO',
      });
    }
    host.faults.clear();
    await two.write(filled(1, 1), 0);
  });

  it('fails an open', async () => {
    const host = new MemoryHost({ faults: [{ operation: 'open', nth: 1, errno: 'EIO' }] });
    host.putFile('a.img', filled(1, 1));
    await expect(host.openFile('a.img', { readOnly: true })).rejects.toThrow(
      "Could not open 'a.img': Input/output error",
    );
    await host.openFile('a.img', { readOnly: true });
  });
});
