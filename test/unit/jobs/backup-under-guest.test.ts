// SPDX-License-Identifier: Apache-2.0
// A backup holds the point in time at which it began, whatever the guest writes meanwhile.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { must, Permission, SeededRandom, systemClock } from '../../../src/base/index.js';
import { createEngine } from '../../../src/engine/index.js';
import { startCreate } from '../../../src/jobs/index.js';
import { DiskModel, GuestWriter, MemoryHost } from '../../../src/testing/index.js';
import { startBackup } from '../../helpers/start-backup.js';

const SIZE = 1_310_720;

async function createImage(engine: Awaited<ReturnType<typeof createEngine>>, name: string) {
  const file = `${name}.qcow2`;
  for (const options of [
    { driver: 'file' as const, filename: file, size: 0 },
    { driver: 'qcow2' as const, file: { driver: 'file' as const, filename: file }, size: SIZE },
  ]) {
    const job = await startCreate(engine.jobs, { 'job-id': 'create', options });
    while (job.info().status !== 'concluded') await tick();
    expect(job.info().error).toBeUndefined();
    await job.dismiss();
  }
  return engine.graph.open({
    driver: 'qcow2',
    'node-name': name,
    file: { driver: 'file', filename: file },
  });
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function backupUnderGuest(seed: number): Promise<number | null> {
  const host = new MemoryHost({ seed, clock: systemClock });
  const engine = await createEngine({ host, lanes: 0 });
  try {
    const [disk, target] = [await createImage(engine, 'disk'), await createImage(engine, 'target')];
    const model = new DiskModel(SIZE);
    const backend = await engine.graph.attach(disk, 'guest', {
      taken: Permission.consistentRead | Permission.write,
      shared: Permission.all,
    });
    const random = new SeededRandom(seed);
    const guest = new GuestWriter({ disk: backend, model, random, longest: 200_704 });
    for (let step = 0; step < 20; step += 1) await guest.step();
    const job = await startBackup(engine.jobs, {
      'job-id': 'backup',
      device: 'disk',
      target: 'target',
      sync: 'full',
      'auto-dismiss': false,
    });
    const moment = model.snapshot();
    while (job.info().status !== 'concluded') {
      await guest.step();
      await tick();
    }
    expect(job.info().error).toBeUndefined();
    await backend.detach();
    const content = new Uint8Array(SIZE);
    const reader = await engine.graph.attach(target, 'reader', {
      taken: Permission.consistentRead,
      shared: Permission.all,
    });
    await reader.read(0, content);
    await reader.detach();
    return moment.firstDifference(content);
  } finally {
    await engine.close();
  }
}

describe('blockdev-backup under a writing guest', () => {
  it('holds the moment it began, whatever the guest writes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        expect(await backupUnderGuest(seed)).toBeNull();
      }),
      { numRuns: 30 },
    );
  });
});

describe('the copy bitmap', () => {
  it('gives runs of whole units, however odd the limit', async () => {
    const { CopyBitmap } = await import('../../../src/block/copy/index.js');
    const bitmap = new CopyBitmap(10 * 65_536 + 512, 65_536);
    expect(bitmap.dirtyRun(0, 100_000)).toBe(65_536);
    expect(bitmap.dirtyRun(0, 1)).toBe(65_536);
    expect(bitmap.dirtyRun(0, 131_072)).toBe(131_072);
    expect(bitmap.dirtyRun(10 * 65_536, 65_536)).toBe(512);
    expect(must(bitmap.nextDirty(1), 'unit')).toBe(65_536);
  });
});
