// SPDX-License-Identifier: Apache-2.0
// copy-before-write and snapshot-access over devices whose answers are held back one by one.
import { describe, expect, it } from 'vitest';
import { BlockError, ManualClock } from '../../../src/base/index.js';
import { addBitmap } from '../../../src/block/index.js';
import type { Backend, Driver, Graph, NodeOptions, Request } from '../../../src/block/index.js';
import { copyBeforeWrite } from '../../../src/drivers/filters/copy-before-write/index.js';
import { snapshotAccess } from '../../../src/drivers/filters/snapshot-access/index.js';
import {
  errorOf,
  graphOn,
  MemoryHost,
  pattern,
  READ_ONLY,
  READ_WRITE,
} from '../../helpers/graph.js';
import { firstDifference, turns } from '../../helpers/job-stage.js';
import { testDriver } from '../../helpers/test-driver.js';
import type { TestDriver } from '../../helpers/test-driver.js';

const UNIT = 65_536;
const SIZE = 4 * UNIT + 4096;

/** Holds requests of one kind back until they are let go, oldest first. */
class Gate {
  holds: Request['kind'] | null = null;
  readonly #held: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  readonly pass = (request: Request): Promise<void> | undefined =>
    request.kind === this.holds
      ? new Promise((resolve, reject) => void this.#held.push({ resolve, reject }))
      : undefined;

  get held(): number {
    return this.#held.length;
  }

  letGo(): void {
    for (const { resolve } of this.#held.splice(0)) resolve();
  }

  fail(error: Error): void {
    for (const { reject } of this.#held.splice(0)) reject(error);
  }
}

interface Stage {
  readonly clock: ManualClock;
  readonly graph: Graph;
  readonly source: Gate;
  readonly target: Gate;
  readonly sourceDevice: TestDriver;
  readonly targetDevice: TestDriver;
  readonly guest: Backend;
  readonly snapshot: Backend;
  /** The disk as it was when the filter came in. */
  readonly before: Uint8Array;
}

async function makeStage(options: object = {}, targetSize = SIZE): Promise<Stage> {
  const clock = new ManualClock();
  const [source, target] = [new Gate(), new Gate()];
  const bytes = pattern(SIZE);
  const before = bytes.slice();
  const sourceDevice = testDriver({ bytes, gate: source.pass });
  const old = pattern(targetSize, 2);
  const targetDevice = testDriver({ bytes: old, gate: target.pass });
  const graph = graphOn(new MemoryHost({ clock }), [
    sourceDevice.driver,
    { ...targetDevice.driver, name: 'target' },
    copyBeforeWrite as unknown as Driver<never>,
    snapshotAccess as unknown as Driver<never>,
  ]);
  const open = (given: object): Promise<unknown> => graph.open(given as NodeOptions);
  await open({ driver: 'test', 'node-name': 'source' });
  await open({ driver: 'target', 'node-name': 'target', discard: 'unmap' });
  const bitmap = addBitmap(graph.require('source'), { name: 'chosen' });
  bitmap.set(UNIT, 1);
  bitmap.set(4 * UNIT, 1);
  const filter = { driver: 'copy-before-write', 'node-name': 'cbw', file: 'source' };
  await open({ ...filter, target: 'target', ...options });
  await open({
    driver: 'snapshot-access', 'node-name': 'snapshot', file: 'cbw', discard: 'unmap',
  });
  const guest = await graph.attach(graph.require('cbw'), 'guest', READ_WRITE);
  const snapshot = await graph.attach(graph.require('snapshot'), 'reader', READ_WRITE);
  return {
    clock, graph, source, target, sourceDevice, targetDevice, guest, snapshot, before,
  };
}

async function read(backend: Backend, offset = 0, length = SIZE - offset): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await backend.read(offset, bytes);
  return bytes;
}

function same(actual: Uint8Array, expected: Uint8Array): void {
  expect(firstDifference(actual, expected)).toBe(-1);
}

/** What became of a promise by now. */
function outcome(promise: unknown): { settled: boolean; error: Error | null } {
  const result: { settled: boolean; error: Error | null } = { settled: false, error: null };
  Promise.resolve(promise).then(
    () => (result.settled = true),
    (error: unknown) => Object.assign(result, { settled: true, error }),
  );
  return result;
}

const NEW = new Uint8Array(1024).fill(0xee);

describe('the snapshot beside guest writes', () => {
  it('a write waits for a read of its unit that began before', async () => {
    const { source, guest, snapshot, before } = await makeStage();
    source.holds = 'read';
    const old = new Uint8Array(UNIT);
    const reading = snapshot.read(0, old);
    source.holds = null;
    const writing = outcome(guest.write(512, NEW));
    await turns();
    expect(writing.settled).toBe(false);
    // Others do not wait: units beside it, and readers that the target serves by now.
    await guest.write(UNIT, NEW);
    same(await read(snapshot, 0, 4096), before.subarray(0, 4096));
    source.letGo();
    await reading;
    await turns();
    expect(writing).toEqual({ settled: true, error: null });
    same(old, before.subarray(0, UNIT));
    same(await read(snapshot), before);
    same(await read(guest, 512, 1024), NEW);
  });

  it('a read that begins while the old bytes are copied sees them', async () => {
    const { target, guest, snapshot, before, sourceDevice } = await makeStage();
    target.holds = 'write';
    const writing = outcome(guest.write(2 * UNIT + 512, NEW));
    await turns();
    expect(target.held).toBe(1);
    same(await read(snapshot), before);
    expect(writing.settled).toBe(false);
    expect(sourceDevice.calls.filter(({ kind }) => kind === 'write')).toEqual([]);
    target.letGo();
    await turns();
    expect(writing.settled).toBe(true);
    same(await read(snapshot), before);
  });

  it('two writes to one unit copy it once, and both wait for that', async () => {
    const { target, guest, targetDevice, snapshot, before } = await makeStage();
    target.holds = 'write';
    const first = outcome(guest.write(0, NEW));
    const second = outcome(guest.write(4096, NEW));
    const zeroes = outcome(guest.writeZeroes(8192, 4096));
    const discard = outcome(guest.discard(16_384, 4096));
    await turns();
    expect([first, second, zeroes].map(({ settled }) => settled)).toEqual([false, false, false]);
    target.letGo();
    await turns();
    expect([first, second, zeroes, discard].every(({ settled }) => settled)).toBe(true);
    expect(targetDevice.calls.filter(({ kind }) => kind !== 'read')).toHaveLength(1);
    same(await read(snapshot), before);
  });

  it('a discard gives units up: never copied, not to be read, and free in the target', async () => {
    const { guest, snapshot, targetDevice, before } = await makeStage();
    await guest.write(UNIT, NEW);
    await snapshot.discard(100, 3 * UNIT - 100);
    const discards = targetDevice.calls.filter(({ kind }) => kind === 'discard');
    expect(discards.map(({ offset, length }) => [offset, length])).toEqual([[UNIT, 2 * UNIT]]);
    await guest.write(2 * UNIT, NEW);
    expect(targetDevice.calls.filter(({ kind }) => kind === 'write')).toHaveLength(1);
    same(await read(snapshot, 0, UNIT), before.subarray(0, UNIT));
    same(await read(snapshot, 3 * UNIT), before.subarray(3 * UNIT));
    for (const offset of [UNIT, 2 * UNIT, 3 * UNIT - 512]) {
      const error = await errorOf(() => read(snapshot, offset, 1024));
      expect(error).toMatchObject({ kind: 'access-denied', errno: 'EACCES' });
    }
  });

  it('a discard waits for the copy in flight and takes it away again', async () => {
    const { target, guest, snapshot, targetDevice } = await makeStage();
    target.holds = 'write';
    const writing = outcome(guest.write(0, NEW));
    await turns();
    const discarding = outcome(snapshot.discard(0, UNIT));
    await turns();
    expect(discarding.settled).toBe(false);
    target.letGo();
    await turns();
    expect([writing.settled, discarding.settled]).toEqual([true, true]);
    expect(targetDevice.calls.map(({ kind }) => kind)).toEqual(['write', 'discard']);
  });

  it('the last unit is as short as the disk', async () => {
    const { guest, snapshot, before, targetDevice } = await makeStage();
    await guest.write(SIZE - 512, new Uint8Array(512).fill(1));
    expect(targetDevice.calls.map(({ length }) => length)).toEqual([4096]);
    same(await read(snapshot), before);
    await snapshot.discard(4 * UNIT, 4096);
    await errorOf(() => read(snapshot, 4 * UNIT, 512));
  });

  it('nothing can be written to it, and it has no snapshot of its own', async () => {
    const { graph, snapshot } = await makeStage();
    for (const write of [
      () => snapshot.write(0, NEW),
      () => snapshot.writeZeroes(0, 4096),
    ]) {
      expect(await errorOf(write)).toMatchObject({ kind: 'unsupported', errno: 'ENOTSUP' });
    }
    const over = { driver: 'snapshot-access', 'node-name': 'over', file: 'snapshot' };
    await graph.open(over as NodeOptions);
    const reader = await graph.attach(graph.require('over'), 'over', READ_ONLY);
    const error = await errorOf(() => read(reader));
    expect(error).toMatchObject({ kind: 'unsupported' });
    expect(error.message).toContain("Node 'snapshot' keeps no snapshot");
  });

  it('with a bitmap it has the units that have bits set, and only those are copied', async () => {
    const { guest, snapshot, before, targetDevice } = await makeStage({
      bitmap: { node: 'source', name: 'chosen' },
    });
    await guest.write(0, new Uint8Array(SIZE).fill(0xee));
    const copied = targetDevice.calls.map(({ offset, length }) => [offset, length]);
    expect(copied).toEqual([[UNIT, UNIT], [4 * UNIT, 4096]]);
    same(await read(snapshot, UNIT, UNIT), before.subarray(UNIT, 2 * UNIT));
    same(await read(snapshot, 4 * UNIT), before.subarray(4 * UNIT));
    for (const [offset, length] of [[0, 512], [2 * UNIT, 512], [UNIT, UNIT + 1]] as const) {
      expect(await errorOf(() => read(snapshot, offset, length))).toMatchObject({
        kind: 'access-denied',
      });
    }
  });
});

const FAILURE = new BlockError('io', 'the target is gone');

describe('a copy that fails', () => {
  it('fails the write and leaves disk and snapshot as they were, and is tried again', async () => {
    const { target, guest, snapshot, before, sourceDevice } = await makeStage();
    target.holds = 'write';
    const writing = outcome(guest.write(0, NEW));
    const other = outcome(guest.write(4096, NEW));
    await turns();
    target.fail(FAILURE);
    await turns();
    expect(writing.error?.message).toContain('Copying before the write failed');
    // The other write has begun the copy anew.
    expect([other.settled, target.held]).toEqual([false, 1]);
    expect(sourceDevice.calls.filter(({ kind }) => kind === 'write')).toEqual([]);
    same(await read(snapshot), before);
    target.letGo();
    await turns();
    expect(other).toEqual({ settled: true, error: null });
    same(await read(snapshot), before);
    same(await read(guest, 0, 1024), before.subarray(0, 1024));
  });

  it('breaks the snapshot for good where the guest is to go on', async () => {
    const stage = await makeStage({ 'on-cbw-error': 'break-snapshot' });
    const { target, source, guest, snapshot, before, targetDevice } = stage;
    await guest.write(3 * UNIT, NEW);
    source.holds = 'read';
    const old = new Uint8Array(4096);
    const reading = snapshot.read(0, old);
    source.holds = null;
    target.holds = 'write';
    const writing = outcome(guest.write(0, NEW));
    await turns();
    target.fail(FAILURE);
    await turns();
    // Even then it waits for the read that has begun.
    expect(writing.settled).toBe(false);
    source.letGo();
    await reading;
    same(old, before.subarray(0, 4096));
    await turns();
    expect(writing).toEqual({ settled: true, error: null });
    const copies = targetDevice.calls.length;
    await guest.write(UNIT, NEW);
    expect(targetDevice.calls).toHaveLength(copies);
    for (const offset of [0, 2 * UNIT, 3 * UNIT]) {
      const error = await errorOf(() => read(snapshot, offset, 512));
      expect(error).toMatchObject({ kind: 'access-denied', message: 'Permission denied' });
    }
    const { graph } = stage;
    const status = (): unknown => graph.require('snapshot').blockStatus(0, UNIT, false);
    expect(await errorOf(status)).toMatchObject({ kind: 'access-denied' });
    same(await read(guest, UNIT, 1024), NEW);
  });

  it('a target that is too short fails the units past its end', async () => {
    const { guest, snapshot, before } = await makeStage({}, 2 * UNIT);
    await guest.write(UNIT, NEW);
    expect(await errorOf(() => guest.write(2 * UNIT, NEW))).toMatchObject({ errno: 'EIO' });
    same(await read(snapshot), before);
  });
});

describe('a copy that takes too long', () => {
  it('fails the write, but goes on; the unit is not copied again', async () => {
    const stage = await makeStage({ 'cbw-timeout': 3 });
    const { clock, target, guest, snapshot, before, targetDevice, graph } = stage;
    target.holds = 'write';
    const writing = outcome(guest.write(0, NEW));
    await turns();
    clock.advance(2999);
    await turns();
    expect(writing.settled).toBe(false);
    clock.advance(1);
    await turns();
    expect(writing.error).toMatchObject({ errno: 'ETIMEDOUT' });
    expect(clock.pendingTimers).toBe(0);
    const draining = graph.drain([graph.require('cbw')]);
    const drained = outcome(draining);
    await turns();
    expect(drained.settled).toBe(false);
    target.letGo();
    (await draining).end();
    same(await read(snapshot), before);
    await guest.write(0, NEW);
    expect(targetDevice.calls.filter(({ kind }) => kind === 'write')).toHaveLength(1);
    same(await read(snapshot), before);
    expect(clock.pendingTimers).toBe(0);
  });

  it('units that were not begun when the time was over are left alone', async () => {
    const { clock, target, guest, targetDevice } = await makeStage({ 'cbw-timeout': 1 });
    target.holds = 'write';
    const first = outcome(guest.write(UNIT, NEW));
    await turns();
    const wide = outcome(guest.write(0, new Uint8Array(3 * UNIT).fill(1)));
    await turns();
    clock.advance(1000);
    await turns();
    for (const { error } of [first, wide]) expect(error).toMatchObject({ errno: 'ETIMEDOUT' });
    target.letGo();
    await turns();
    expect(targetDevice.calls.map(({ offset }) => offset)).toEqual([UNIT]);
  });

  it('breaks the snapshot where the guest is to go on', async () => {
    const { clock, target, guest, snapshot } = await makeStage({
      'cbw-timeout': 1, 'on-cbw-error': 'break-snapshot',
    });
    target.holds = 'write';
    const writing = outcome(guest.write(0, NEW));
    await turns();
    clock.advance(1000);
    await turns();
    expect(writing).toEqual({ settled: true, error: null });
    expect(await errorOf(() => read(snapshot, UNIT, 512))).toMatchObject({ errno: 'EACCES' });
    target.letGo();
    await turns();
    expect(await errorOf(() => read(snapshot, UNIT, 512))).toMatchObject({ errno: 'EACCES' });
    same(await read(guest, 0, 1024), NEW);
  });

  it('no time is too long for a timer', async () => {
    const { clock, target, guest } = await makeStage({ 'cbw-timeout': 2 ** 32 - 1 });
    target.holds = 'write';
    const writing = outcome(guest.write(0, NEW));
    await turns();
    expect([clock.pendingTimers, writing.settled]).toEqual([0, false]);
    target.letGo();
    await turns();
    expect(writing.settled).toBe(true);
  });
});
