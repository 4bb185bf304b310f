// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

import { Permission, SeededRandom } from '../../../src/base/index.js';
import { CopyEngine, copyImage, inProcessLanes } from '../../../src/block/copy/index.js';
import type { LaneExecutor } from '../../../src/block/copy/index.js';
import { createImage, firstDifference, makeStage } from '../../helpers/job-stage.js';
import { openImage, readAll } from '../../helpers/job-stage.js';
import { runMeasured } from '../../helpers/measured-run.js';

const MIB = 2 ** 20;

it('a compressed copy uses the memory of a batch again for later ones', async () => {
  const stage = makeStage();
  for (const name of ['source', 'target']) await createImage(stage, { name, size: 24 * MIB });
  const source = await openImage(stage, 'source');
  const target = await openImage(stage, 'target');
  const permissions = { taken: Permission.write, shared: Permission.all };
  const writer = await stage.graph.attach(source, 'guest', permissions);
  const bytes = new Uint8Array(MIB);
  for (let at = 0; at < source.length; at += MIB) {
    new SeededRandom(at + 1).fill(bytes.subarray(0, MIB / 3));
    await writer.write(at, bytes);
  }
  await stage.graph.attach(target, 'copy', permissions);
  const slabs = new Set<SharedArrayBuffer>();
  let batches = 0;
  const inner = inProcessLanes(new SeededRandom(1));
  const lanes: LaneExecutor = {
    width: inner.width,
    run(batch, owner) {
      batches += 1;
      if (batch.task.slab !== null) slabs.add(batch.task.slab);
      return inner.run(batch, owner);
    },
    warmUp: () => inner.warmUp(),
    close: () => inner.close(),
  };
  const spec = { source: { node: source }, target: { node: target }, unit: 65_536 };
  const failure = await copyImage(new CopyEngine({ lanes }), stage.host.clock, {
    ...spec,
    zeroGranularity: 65_536,
    targetIsZero: true,
    compress: true,
    inFlight: 2,
  });
  expect(failure).toBeNull();
  expect(firstDifference(await readAll(target), await readAll(source))).toBe(-1);
  expect(batches).toBeGreaterThan(8);
  expect(slabs.size).toBeLessThanOrEqual(3);
});

it('convert -c stays under 220 MiB of memory', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'compressed-'));
  try {
    const bytes = new Uint8Array(96 * MIB);
    for (let at = 0; at < bytes.length; at += 64 * 1024) {
      new SeededRandom(at + 1).fill(bytes.subarray(at, at + 24 * 1024));
    }
    writeFileSync(join(folder, 'a'), bytes);
    const args = ['img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', 'a', 'b'];
    const run = await runMeasured(args, { cwd: folder });
    expect([run.status, run.complaint]).toEqual([0, '']);
    expect(run.residentMiB).toBeLessThan(220);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
