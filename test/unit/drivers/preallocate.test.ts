// SPDX-License-Identifier: Apache-2.0
// How long a file is below a preallocating node, with and without permissions, faults and waiting.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { Permission, type Eventually, type PermissionPair } from '../../../src/base/index.js';
import { writeRequest } from '../../../src/block/index.js';
import type { Backend, Driver, Graph, Node } from '../../../src/block/index.js';
import { preallocate } from '../../../src/drivers/filters/preallocate/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_WRITE,
} from '../../helpers/graph.js';

const KIB = 1024;
const GROWING: PermissionPair = {
  taken: Permission.consistentRead | Permission.write | Permission.resize,
  shared: Permission.consistentRead | Permission.writeUnchanged,
};

interface Stage {
  readonly host: MemoryHost;
  readonly graph: Graph;
  readonly node: Node;
  readonly user: Backend;
  readonly fileSize: () => Promise<number>;
  /** As a format does, which may go past the end. */
  readonly write: (offset: number, bytes: Uint8Array) => Eventually<void>;
}

async function stage(
  host = new MemoryHost(),
  options: Readonly<Record<string, unknown>> = {},
): Promise<Stage> {
  const graph = graphOn(host, [preallocate as unknown as Driver<never>]);
  await makeFile(host, '/disk', 4 * KIB);
  const node = await graph.open({
    driver: 'preallocate',
    'node-name': 'p',
    file: { driver: 'file', filename: '/disk' },
    'prealloc-align': 64 * KIB,
    'prealloc-size': 1000 * KIB,
    ...options,
  });
  return {
    host,
    graph,
    node,
    user: await graph.attach(node, 'format', GROWING),
    write: (offset, bytes) => node.write(writeRequest(offset, bytes)),
    fileSize: async () => (await host.stat('/disk'))?.size ?? -1,
  };
}

describe('a preallocating node', () => {
  it('grows the file once for many writes, to a multiple of the alignment', async () => {
    const { host, node, user, write, graph, fileSize } = await stage();
    await write(1000, pattern(100));
    expect(await fileSize()).toBe(4 * KIB);
    for (let at = 4 * KIB; at < 1000 * KIB; at += 100 * KIB) {
      await write(at, pattern(100));
      expect(node.length).toBe(at + 512);
      expect(await fileSize()).toBe(1024 * KIB);
    }
    expect(host.faults.count('truncate')).toBeLessThan(4);
    await write(1024 * KIB, pattern(KIB));
    expect(await fileSize()).toBe(2048 * KIB);
    await user.detach();
    expect(await fileSize()).toBe(1025 * KIB);
    await graph.closeAll();
  });

  it('leaves a file alone whose users may not resize it, and shares it', async () => {
    const { user, graph, node, fileSize } = await stage();
    await user.detach();
    const writer = await graph.attach(node, 'guest', READ_WRITE);
    await writer.write(0, pattern(4 * KIB));
    expect(await errorOf(() => writer.write(4 * KIB, pattern(512)))).toMatchObject({
      kind: 'out-of-range',
    });
    expect(await fileSize()).toBe(4 * KIB);
    const [file] = [...node.children.values()];
    const other = await graph.attach(file?.node ?? node, 'other', READ_WRITE);
    expect(await errorOf(() => graph.attach(node, 'format', GROWING))).toMatchObject({
      kind: 'permission',
    });
    await other.detach();
    await writer.detach();
    await graph.closeAll();
  });

  it('is as long as its data to those who look, and reads zeroes in between', async () => {
    const { user, write, node, graph } = await stage();
    await write(20 * KIB, pattern(KIB));
    expect(node.length).toBe(21 * KIB);
    const bytes = new Uint8Array(21 * KIB).fill(9);
    await user.read(0, bytes);
    expect(bytes.subarray(0, 20 * KIB).every((byte) => byte === 0)).toBe(true);
    expect(await errorOf(() => user.read(21 * KIB, new Uint8Array(1)))).toMatchObject({
      kind: 'out-of-range',
    });
    await user.detach();
    await graph.closeAll();
  });

  it('follows a resize both ways, and gives what is preallocated when asked for it', async () => {
    const { user, write, node, graph, fileSize } = await stage();
    await write(4 * KIB, pattern(KIB));
    await node.truncate(100 * KIB, { preallocation: 'falloc' });
    expect([node.length, await fileSize()]).toEqual([100 * KIB, 1024 * KIB]);
    await node.truncate(200 * KIB);
    expect([node.length, await fileSize()]).toEqual([200 * KIB, 200 * KIB]);
    await write(200 * KIB, pattern(KIB));
    await node.truncate(10 * KIB);
    expect([node.length, await fileSize()]).toEqual([10 * KIB, 10 * KIB]);
    await user.detach();
    expect(await fileSize()).toBe(10 * KIB);
    await graph.closeAll();
  });

  it('writes on when the file system has no room for more than the data', async () => {
    const { host, user, write, graph, fileSize } = await stage();
    host.faults.add({ operation: 'truncate', nth: 1, errno: 'ENOSPC', lasting: true });
    await write(4 * KIB, pattern(KIB));
    await write(8 * KIB, pattern(KIB));
    expect(await fileSize()).toBe(9 * KIB);
    host.faults.clear();
    await write(12 * KIB, pattern(KIB));
    expect(await fileSize()).toBe(1024 * KIB);
    await user.detach();
    expect(await fileSize()).toBe(13 * KIB);
    await graph.closeAll();
  });

  it('keeps the end of its data when cutting the file fails, and cuts it on closing', async () => {
    const { host, user, write, node, graph, fileSize } = await stage();
    await write(4 * KIB, pattern(KIB));
    host.faults.add({ operation: 'truncate', nth: 1, errno: 'EIO' });
    await user.detach();
    expect([node.length, await fileSize()]).toEqual([5 * KIB, 1024 * KIB]);
    await graph.closeAll();
    expect(await fileSize()).toBe(5 * KIB);
  });

  it('gives up the permissions on its file once that is as long as its data', async () => {
    for (const seed of [1, 2, 3, 4]) {
      const host = new MemoryHost({ seed, laterChance: 1 });
      const { user, write, node, graph } = await stage(host);
      await write(4 * KIB, pattern(KIB));
      const [edge] = [...node.children.values()];
      expect(edge?.permissions.taken).toBe(GROWING.taken);
      await user.detach();
      expect(edge?.permissions).toEqual({ taken: Permission.none, shared: Permission.all });
      await graph.closeAll();
    }
  });

  it('keeps what it knows when it is reopened with other options', async () => {
    const { user, write, node, graph, fileSize } = await stage();
    await write(4 * KIB, pattern(KIB));
    const given = { driver: 'preallocate', 'node-name': 'p', 'prealloc-align': 4 * KIB };
    const file = [...node.children.values()][0]?.node.name;
    await graph.reopen([{ ...given, file, 'prealloc-size': 0 }]);
    expect([node.length, await fileSize()]).toEqual([5 * KIB, 5 * KIB]);
    await write(6 * KIB, pattern(KIB));
    expect([node.length, await fileSize()]).toEqual([7 * KIB, 8 * KIB]);
    await user.detach();
    expect(await fileSize()).toBe(7 * KIB);
    await graph.closeAll();
  });

  it('has all that was written and nothing more, whatever is written at once', async () => {
    const part = fc.record({ slot: fc.nat(200), seed: fc.nat(100), waits: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.array(part, { maxLength: 12 }), async (seed, writes) => {
        const host = new MemoryHost({ seed, laterChance: 0.6 });
        const { user, write, graph, fileSize } = await stage(host, { 'prealloc-size': 40 * KIB });
        const slots = new Map(writes.map((write) => [write.slot, write]));
        const ends = [...slots.keys()].map((at) => (at + 1) * KIB);
        const model = Buffer.alloc(Math.max(4 * KIB, ...ends));
        const running: unknown[] = [];
        for (const { slot, seed: fill, waits } of slots.values()) {
          model.set(pattern(KIB, fill), slot * KIB);
          const done = write(slot * KIB, pattern(KIB, fill));
          if (waits) await done;
          running.push(done);
        }
        await Promise.all(running);
        await user.detach();
        expect(await fileSize()).toBe(model.length);
        await graph.closeAll();
        const file = await host.openFile('/disk', { readOnly: true });
        const bytes = Buffer.alloc(model.length);
        await file.read(bytes, 0);
        await file.close();
        expect(bytes.equals(model)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});
