// SPDX-License-Identifier: Apache-2.0
// Requests held at events: interleavings that a test can choose, and drains that end all the same.
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { must, Permission } from '../../../src/base/index.js';
import { breakpointsOf } from '../../../src/block/index.js';
import type { Backend, Breakpoints, Driver, Graph, Node } from '../../../src/block/index.js';
import { blkdebug } from '../../../src/drivers/filters/blkdebug/index.js';
import { copyOnRead } from '../../../src/drivers/filters/copy-on-read/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_WRITE,
} from '../../helpers/graph.js';

const CLUSTER = 65_536;

describe('a request', () => {
  let graph: Graph;
  let node: Node;
  let user: Backend;
  let points: Breakpoints;

  beforeEach(() => start(false));

  async function start(withBacking: boolean): Promise<void> {
    const host = new MemoryHost();
    const drivers = [blkdebug, copyOnRead, qcow2Driver];
    graph = graphOn(host, drivers as unknown as readonly Driver<never>[]);
    await makeFile(host, '/image', 0);
    const file = { driver: 'file', filename: '/image' };
    const plain = await graph.open({ ...file, 'node-name': 'plain' });
    const maker = await graph.attach(plain, 'create', {
      taken: Permission.write | Permission.resize,
      shared: Permission.all,
    });
    const context = { host, node: () => Promise.resolve(plain) };
    await qcow2Driver.create?.(context, { file: 'plain', size: 64 * CLUSTER });
    await maker.detach();
    await graph.close(plain);
    await makeFile(host, '/base', pattern(4 * CLUSTER, 9));
    const backing = { driver: 'file', filename: '/base' };
    node = await graph.open({
      driver: 'qcow2',
      'node-name': 'image',
      file: { driver: 'blkdebug', image: file },
      backing: withBacking ? backing : null,
      discard: 'unmap',
    });
    points = must(breakpointsOf(node), 'breakpoints');
    user = await graph.attach(node, 'guest', READ_WRITE);
  }

  afterEach(() => graph.closeAll());

  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    const buffer = new Uint8Array(length);
    await user.read(offset, buffer);
    return buffer;
  };

  it('is held at its event, and others pass', async () => {
    points.set('write_aio', 'A');
    const first = user.write(0, pattern(CLUSTER, 1));
    await points.held('A');
    expect(points.isHolding('A')).toBe(true);
    expect(await read(0, 512)).toEqual(new Uint8Array(512));
    await user.write(CLUSTER, pattern(CLUSTER, 2));
    expect(await read(CLUSTER, 512)).toEqual(pattern(CLUSTER, 2).subarray(0, 512));
    expect(points.resume('A')).toBe(true);
    await first;
    expect(await read(0, CLUSTER)).toEqual(pattern(CLUSTER, 1));
    expect(points.resume('A')).toBe(false);
  });

  it('that meets two breakpoints is let go twice', async () => {
    points.set('write_aio', 'A');
    points.set('write_aio', 'A');
    let done = false;
    const first = Promise.resolve(user.write(0, pattern(512))).then(() => {
      done = true;
    });
    await points.held('A');
    expect(points.resume('A')).toBe(true);
    await user.write(CLUSTER, pattern(512));
    expect(done).toBe(false);
    expect(points.resume('A')).toBe(true);
    await first;
  });

  it('to a cluster that another request is allocating waits for it', async () => {
    points.set('write_aio', 'A');
    const ended: string[] = [];
    const first = Promise.resolve(user.write(0, pattern(512, 1))).then(() => ended.push('first'));
    await points.held('A');
    const second = Promise.resolve(user.write(1024, pattern(512, 2))).then(() =>
      ended.push('second'),
    );
    await user.write(8 * CLUSTER, pattern(512, 3));
    expect(ended).toEqual([]);
    points.resume('A');
    await Promise.all([first, second]);
    expect(await read(0, 512)).toEqual(pattern(512, 1));
    expect(await read(1024, 512)).toEqual(pattern(512, 2));
  });

  it('is held at the door where the event itself cannot wait', async () => {
    points.set('cluster_alloc', 'A');
    const write = user.write(0, pattern(CLUSTER, 1));
    await points.held('A');
    expect(await read(0, 512)).toEqual(new Uint8Array(512));
    points.resume('A');
    await write;
    expect(await read(0, CLUSTER)).toEqual(pattern(CLUSTER, 1));
  });

  it('is done but not told so while it is held after its end', async () => {
    await user.write(0, pattern(CLUSTER, 1));
    points.set('pwritev_done', 'A');
    const write = user.write(0, pattern(CLUSTER, 2));
    await points.held('A');
    expect(await read(0, CLUSTER)).toEqual(pattern(CLUSTER, 2));
    points.resume('A');
    await write;
  });

  it('goes on when its breakpoint is removed, which is told from none', async () => {
    points.set('read_aio', 'A');
    expect(points.remove('A')).toBe(true);
    expect(points.remove('A')).toBe(false);
    await user.write(0, pattern(512));
    points.set('read_aio', 'A');
    const reading = read(0, 512);
    await points.held('A');
    expect(points.remove('A')).toBe(false);
    expect(await reading).toEqual(pattern(512));
  });

  it('is let go by a drained section above it, in which none is held', async () => {
    points.set('write_aio', 'A');
    const write = user.write(0, pattern(CLUSTER, 1));
    await points.held('A');
    const section = await graph.drain([node]);
    expect(points.isHolding('A')).toBe(false);
    await write;
    points.set('flush_to_disk', 'B');
    await node.flush();
    section.end();
    await user.write(0, pattern(512));
    const flush = user.flush();
    await points.held('B');
    points.resume('B');
    await flush;
  });

  it('that copies what it reads never wins over a write that comes meanwhile', async () => {
    for (const event of ['read_backing_aio', 'write_aio', 'pwritev', 'pwritev_done']) {
      await user.detach();
      await graph.closeAll();
      await start(true);
      const filter = await graph.open({ driver: 'copy-on-read', file: 'image' });
      const guest = await graph.attach(filter, 'guest of the filter', READ_WRITE);
      points.set(event, 'A');
      const there = new Uint8Array(CLUSTER);
      const reading = guest.read(0, there);
      await points.held('A');
      const writing = guest.write(512, pattern(1024, 3));
      await guest.read(8 * CLUSTER, new Uint8Array(512));
      points.resume('A');
      await Promise.all([reading, writing]);
      const expected = pattern(CLUSTER, 9);
      expected.set(pattern(1024, 3), 512);
      await guest.read(0, there);
      expect([event, Buffer.compare(there, expected)]).toEqual([event, 0]);
      await guest.detach();
      await graph.close(filter);
    }
  });

  it('to sectors of its own is never lost, in whatever order the held go on', async () => {
    const event = fc.constantFrom(
      'write_aio',
      'cow_read',
      'cow_write',
      'l2_load',
      'l2_alloc_write',
      'cluster_alloc',
      'refblock_load',
      'read_backing_aio',
      'pwritev',
      'pwritev_done',
    );
    const breakpoints = fc.array(event, { minLength: 1, maxLength: 8 });
    const turns = fc.infiniteStream(fc.nat(7));
    const sectors = fc.uniqueArray(fc.nat(255), { minLength: 2, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(breakpoints, sectors, turns, async (events, places, order) => {
        await user.detach();
        await graph.closeAll();
        await start(true);
        events.forEach((name, index) => points.set(name, `tag ${index}`));
        const tags = events.map((_, index) => `tag ${index}`);
        let left = places.length;
        const writes = places.map((sector, index) =>
          Promise.resolve(user.write(sector * 512, pattern(512, index))).then(() => {
            left -= 1;
          }),
        );
        while (left > 0) {
          const from = order.next().value % tags.length;
          const turned = [...tags.slice(from), ...tags.slice(0, from)];
          const held = turned.find((tag) => points.isHolding(tag));
          if (held !== undefined) points.resume(held);
          for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
        }
        await Promise.all(writes);
        const expected = pattern(4 * CLUSTER, 9).subarray(0, 2 * CLUSTER);
        places.forEach((sector, index) => expected.set(pattern(512, index), sector * 512));
        expect(Buffer.compare(await read(0, 2 * CLUSTER), expected)).toBe(0);
        for (const tag of tags) points.remove(tag);
        await user.flush();
        const checked = await node.driverNode.check?.('none');
        expect(checked).toMatchObject({ corruptions: 0, leaks: 0 });
      }),
      { numRuns: 30 },
    );
  });

  it('cannot be held at an event that does not exist', async () => {
    const error = await errorOf(() => points.set('nope', 'A'));
    expect(error).toMatchObject({ kind: 'not-found' });
  });
});
