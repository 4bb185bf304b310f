// SPDX-License-Identifier: Apache-2.0
// auto-read-only: the file is open for writing only while someone may write.

import { describe, expect, it } from 'vitest';

import { must, Permission } from '../../../src/base/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  READ_ONLY,
  READ_WRITE,
} from '../../helpers/graph.js';
import type { Graph, Node } from '../../../src/block/index.js';

const FILE = { driver: 'file', filename: '/disk', 'node-name': 'f', 'auto-read-only': true };

async function setUp(): Promise<{ host: MemoryHost; graph: Graph; node: Node }> {
  const host = new MemoryHost();
  await makeFile(host, '/disk', 65_536);
  const graph = graphOn(host);
  return { host, graph, node: await graph.open(FILE) };
}

const isOpenForWriting = (node: Node): boolean => node.driverNode.hostFile?.readOnly === false;

describe('a file that is opened with auto-read-only', () => {
  it('follows its users, and the node stays one that may be written to', async () => {
    const { graph, node } = await setUp();
    expect([node.readOnly, isOpenForWriting(node)]).toEqual([false, false]);
    const reader = await graph.attach(node, 'reader', READ_ONLY);
    expect(isOpenForWriting(node)).toBe(false);
    const writer = await graph.attach(node, 'writer', READ_WRITE);
    expect(isOpenForWriting(node)).toBe(true);
    await writer.write(0, new Uint8Array(512).fill(7));
    await writer.detach();
    expect([node.readOnly, isOpenForWriting(node)]).toEqual([false, false]);
    const back = new Uint8Array(512);
    await reader.read(0, back);
    expect(back[511]).toBe(7);
    await reader.detach();
    await graph.closeAll();
  });

  it('is flushed through the former opening when its writer is gone', async () => {
    const { host, graph, node } = await setUp();
    const writer = await graph.attach(node, 'writer', READ_WRITE);
    await writer.write(0, new Uint8Array(512).fill(7));
    host.faults.add({ operation: 'sync', nth: 1, errno: 'EIO' });
    await writer.detach();
    expect(await errorOf(() => node.flush())).toMatchObject({ errno: 'EIO' });
    await errorOf(() => graph.closeAll());
  });

  it('a flush that waits for one former opening waits for the next as well', async () => {
    const { host, graph, node } = await setUp();
    // As a lane that still reads from it.
    const first = must(node.driverNode.hostFile, 'file');
    first.hold();
    const writer = await graph.attach(node, 'writer', READ_WRITE);
    await writer.write(0, new Uint8Array(512).fill(7));
    const flushed = node.flush();
    host.faults.add({ operation: 'sync', nth: 1, errno: 'EIO' });
    await writer.detach();
    first.release();
    expect(await errorOf(() => flushed)).toMatchObject({ errno: 'EIO' });
    await errorOf(() => graph.closeAll());
  });

  it('a failed flush stays one for the next writer, and no reopening makes it good', async () => {
    const { host, graph, node } = await setUp();
    const writer = await graph.attach(node, 'writer', READ_WRITE);
    await writer.write(0, new Uint8Array(512).fill(7));
    host.faults.add({ operation: 'sync', nth: 1, errno: 'EIO' });
    expect(await errorOf(() => writer.flush())).toMatchObject({ errno: 'EIO' });
    await writer.detach();
    const next = await graph.attach(node, 'writer', READ_WRITE);
    expect(await errorOf(() => next.flush())).toMatchObject({ kind: 'io' });
    const reopened = await errorOf(() => graph.reopen([{ ...FILE, 'auto-read-only': false }]));
    expect(reopened.message).toMatch(/^Error flushing drive: /);
    expect(await errorOf(() => next.flush())).toMatchObject({ kind: 'io' });
    await next.detach();
    await errorOf(() => graph.closeAll());
  });

  it('a writer that another opening keeps out leaves file and locks as they were', async () => {
    const { host, graph, node } = await setUp();
    const other = await host.openFile('/disk', { readOnly: true });
    other.lock({ taken: Permission.consistentRead, unshared: Permission.write });
    const refused = await errorOf(() => graph.attach(node, 'writer', READ_WRITE));
    expect(refused.message).toBe('Failed to get "write" lock');
    expect([node.parents.size, isOpenForWriting(node)]).toEqual([0, false]);
    await other.close();
    const writer = await graph.attach(node, 'writer', READ_WRITE);
    expect(isOpenForWriting(node)).toBe(true);
    await writer.detach();
    await graph.closeAll();
  });

  it('is inherited by a child file, but not by a backing file', async () => {
    const { graph } = await setUp();
    const raw = await graph.open({
      driver: 'raw',
      'node-name': 'r',
      'auto-read-only': true,
      file: { driver: 'file', filename: '/disk', 'node-name': 'g' },
    });
    expect(isOpenForWriting(graph.require('g'))).toBe(false);
    const writer = await graph.attach(raw, 'writer', READ_WRITE);
    expect(isOpenForWriting(graph.require('g'))).toBe(true);
    await writer.detach();
    await graph.closeAll();
  });
});
