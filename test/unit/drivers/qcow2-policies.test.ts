// SPDX-License-Identifier: Apache-2.0
// Cache sizes and the interval of giving up tables, on an image in memory.
import { describe, expect, it } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import type { ManualClock } from '../../../src/base/index.js';
import { readRequest, writeRequest } from '../../../src/block/index.js';
import { geometryOf } from '../../../src/drivers/formats/qcow2/layout.js';
import { OVERLAP_MODES } from '../../../src/drivers/formats/qcow2/metadata/index.js';
import { TableCache } from '../../../src/drivers/formats/qcow2/metadata/table-cache.js';
import type { Table } from '../../../src/drivers/formats/qcow2/metadata/table-cache.js';
import { policiesOf } from '../../../src/drivers/formats/qcow2/policies.js';
import { MemoryHost } from '../../../src/host/index.js';
import { checkOn } from '../../helpers/qcow2-check.js';
import { createOn } from '../../helpers/qcow2-create.js';
import { openOn } from '../../helpers/qcow2-node.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const image = { geometry: geometryOf(16, 4), size: 4096 * MIB };
const policies = (options: object) => policiesOf({ file: 'f', ...options }, image);

describe('cache sizes', () => {
  it('give L2 tables what they can use of one size, and refcounts the rest', () => {
    expect(policies({ 'cache-size': MIB })).toMatchObject({
      l2CacheBytes: 512 * KIB,
      refcountCacheBytes: 512 * KIB,
    });
    expect(policies({ 'cache-size': 512 * KIB })).toMatchObject({
      l2CacheBytes: 256 * KIB,
      refcountCacheBytes: 256 * KIB,
    });
    expect(policies({ 'cache-size': MIB, 'l2-cache-size': 64 * KIB })).toMatchObject({
      l2CacheBytes: 64 * KIB,
      refcountCacheBytes: 960 * KIB,
    });
  });

  it('a single overlap flag counts over the template, which is cached unless given', () => {
    const guarded = (checks: object): number => policies({ 'overlap-check': checks }).guarded;
    expect(guarded({ template: 'all', 'inactive-l2': false })).toBe(OVERLAP_MODES.cached);
    expect(guarded({ 'inactive-l2': true })).toBe(OVERLAP_MODES.all);
    expect(guarded({})).toBe(OVERLAP_MODES.cached);
  });

  it('limit what stays in memory, also when changed, and never what is dirty', () => {
    const fill = (bytes: Uint8Array, offset: number): void => void bytes.fill(offset / 512);
    const cache = new TableCache({ tableBytes: 512, cacheBytes: 16 * 512, fill });
    for (let index = 0; index < 40; index += 1) void cache.load(index * 512);
    const dirty = cache.load(39 * 512) as Table;
    cache.touch(dirty);
    expect(cache.cleanCount).toBeLessThanOrEqual(16);
    cache.resize(4 * 512);
    expect(cache.cleanCount).toBe(4);
    expect(cache.peek(38 * 512)).toBeDefined();
    expect(cache.peek(25 * 512)).toBeUndefined();
    expect(cache.dirtyTables()).toEqual([dirty]);
  });

  it('tables go out in the pieces that changed since they were written', () => {
    const options = { tableBytes: 4096, cacheBytes: 65_536, pieceBytes: () => 1024 };
    const cache = new TableCache({ ...options, fill: () => undefined });
    const table = cache.load(0) as Table;
    const changed = (): boolean[] =>
      [...(table.pieces ?? [])].map((version) => version > table.written);
    cache.touch(table, 1020, 8);
    expect(changed()).toEqual([true, true, false, false]);
    const { version } = table;
    cache.touch(table, 1024, 8);
    cache.cleaned(table, version);
    expect([table.dirty, changed()]).toEqual([true, [false, true, false, false]]);
    cache.cleaned(table, table.version);
    cache.touch(table, 4088, 8);
    expect(changed()).toEqual([false, false, false, true]);
  });

  it('a change writes one piece of a table, and nothing else of it', async () => {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: 512 * MIB });
    const { node } = await openOn(host, '/image', null);
    node.reopened({ file: 'f', 'l2-cache-entry-size': 4 * KIB });
    await node.write(writeRequest(0, new Uint8Array(512).fill(1)));
    await node.flush();
    const written: number[] = [];
    const write = node.image.writeFileAt.bind(node.image);
    node.image.writeFileAt = (point, offset, buffer) => {
      if (point === 'l2_update') written.push(buffer.length);
      return write(point, offset, buffer);
    };
    for (const at of [1, 2, 4000, 4001]) {
      await node.write(writeRequest(at * 64 * KIB, new Uint8Array(512).fill(1)));
    }
    await node.flush();
    expect(written).toEqual([4 * KIB, 4 * KIB]);
    await node.close();
  });

  it('a table in use at a place that is given away is not waited for', () => {
    const cache = new TableCache({ tableBytes: 512, cacheBytes: 4096, fill: () => undefined });
    cache.touch(cache.load(512) as Table);
    const anew = cache.add(512);
    cache.cleaned(anew, anew.version);
    expect(cache.dirtyCount).toBe(0);
  });

  it('a table in the place of one being read is not replaced by what was read', async () => {
    let filled: () => void = () => undefined;
    const fill = (): Promise<void> => new Promise((resolve) => (filled = resolve));
    const cache = new TableCache({ tableBytes: 512, cacheBytes: 4096, fill });
    const loading = cache.load(512);
    const anew = cache.add(512);
    filled();
    expect(await loading).toBe(anew);
    expect(cache.peek(512)).toBe(anew);
  });
});

describe('what is due before the first change', () => {
  it('is done once for writes that come together, and again after a failure', async () => {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: MIB });
    const { node } = await openOn(host, '/image', null);
    const outcomes = ['fails', 'ends'];
    let ended = 0;
    node.makeDue(async () => {
      const outcome = outcomes.shift();
      await Promise.resolve();
      if (outcome !== 'ends') throw new BlockError('io', 'not now');
      ended += 1;
    });
    const both = () =>
      Promise.allSettled(
        [0, 512].map((at) => node.write(writeRequest(at, new Uint8Array(512).fill(1)))),
      );
    expect((await both()).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect((await both()).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    expect(ended).toBe(1);
    await node.close();
  });
});

describe('the clean interval', () => {
  it('gives up tables that nobody used, and no timer is left when none is there', async () => {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: 64 * MIB });
    const { node } = await openOn(host, '/image', null);
    const clock = host.clock as ManualClock;
    const { l2 } = node.image;
    expect(clock.pendingTimers).toBe(0);
    await node.write(writeRequest(0, new Uint8Array(512)));
    await node.flush();
    expect(clock.pendingTimers).toBe(1);
    clock.advance(600_000);
    expect(l2.cleanCount).toBe(1);
    clock.advance(600_000);
    expect(l2.cleanCount).toBe(0);
    expect(clock.pendingTimers).toBe(0);
    await node.read(readRequest(0, new Uint8Array(512)));
    expect(clock.pendingTimers).toBe(1);
    node.reopened({ file: 'f', 'cache-clean-interval': 0 });
    expect(clock.pendingTimers).toBe(0);
    await node.close();
  });
});

describe('a run of clusters longer than the cache of refcounts', () => {
  const CLUSTER = 512;

  it('is found behind and across more refcount blocks than stay in memory', async () => {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: 4 * MIB, 'cluster-size': CLUSTER });
    const first = await openOn(host, '/image');
    await first.node.write(writeRequest(0, new Uint8Array(2 * MIB).fill(7)));
    // Refcount blocks that are there, clean and all zero: those of an L1 table that was given up.
    await first.node.truncate(4096 * MIB, { preallocation: 'off', exact: false });
    await first.node.truncate(4 * MIB, { preallocation: 'off', exact: false });
    await first.node.close();
    const { node } = await openOn(host, '/image');
    node.image.setPolicies({ ...node.image.policies, refcountCacheBytes: 0 });
    await node.truncate(8192 * MIB, { preallocation: 'off', exact: false });
    await node.close();
    expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});
