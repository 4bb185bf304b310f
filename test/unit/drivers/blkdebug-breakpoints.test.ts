// SPDX-License-Identifier: Apache-2.0
// Requests held at events: interleavings that a test can choose, and drains that end all the same.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { must, Permission } from '../../../src/base/index.js';
import type { Backend, Breakpoints, Driver, Graph, Node } from '../../../src/block/index.js';
import { blkdebug } from '../../../src/drivers/filters/blkdebug/index.js';
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

  beforeEach(async () => {
    const host = new MemoryHost();
    graph = graphOn(host, [blkdebug, qcow2Driver] as unknown as readonly Driver<never>[]);
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
    const debug = { driver: 'blkdebug', image: file, 'node-name': 'debug' };
    node = await graph.open({ driver: 'qcow2', file: debug, discard: 'unmap' });
    points = must(graph.require('debug').driverNode.breakpoints, 'breakpoints');
    user = await graph.attach(node, 'guest', READ_WRITE);
  });

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
    const flush = user.flush();
    await points.held('B');
    points.resume('B');
    await flush;
  });

  it('cannot be held at an event that does not exist', async () => {
    const error = await errorOf(() => points.set('nope', 'A'));
    expect(error).toMatchObject({ kind: 'not-found' });
  });
});
