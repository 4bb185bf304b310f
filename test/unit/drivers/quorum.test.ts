// SPDX-License-Identifier: Apache-2.0
// What a quorum reads, writes, reports and repairs, with children that differ or fail.
import { describe, expect, it } from 'vitest';

import { Permission } from '../../../src/base/index.js';
import type { Driver } from '../../../src/block/index.js';
import { quorum } from '../../../src/drivers/filters/quorum/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_WRITE,
} from '../../helpers/graph.js';
import { quorumStage } from '../../helpers/quorum.js';

const SIZE = 64 * 1024;
const same = (count: number): Uint8Array[] => Array.from({ length: count }, () => pattern(SIZE));

function changed(at: number): Uint8Array {
  const bytes = pattern(SIZE);
  bytes[at] = (bytes[at] ?? 0) ^ 0xff;
  return bytes;
}

describe('a quorum', () => {
  it('reads what most children hold, whichever of them differs', async () => {
    for (const odd of [0, 1, 2]) {
      const contents = same(3).map((bytes, index) => (index === odd ? changed(5000) : bytes));
      const stage = await quorumStage(contents, { 'vote-threshold': 2 });
      const bytes = new Uint8Array(SIZE);
      await stage.user.read(0, bytes);
      expect(Buffer.compare(bytes, pattern(SIZE))).toBe(0);
      expect(stage.events).toEqual([`QUORUM_REPORT_BAD c${odd}`]);
      await stage.close();
    }
  });

  it('leaves children alone unless told to rewrite them, and then only what was read', async () => {
    const contents = [changed(100), changed(60_000), pattern(SIZE), pattern(SIZE)];
    const plain = await quorumStage(contents, { 'vote-threshold': 2 });
    await plain.user.read(0, new Uint8Array(1024));
    expect((await plain.contents())[0]?.equals(changed(100))).toBe(true);
    await plain.close();
    const stage = await quorumStage(contents, { 'vote-threshold': 2, 'rewrite-corrupted': true });
    await stage.user.read(0, new Uint8Array(1024));
    const after = await stage.contents();
    expect(after[0]?.equals(pattern(SIZE))).toBe(true);
    expect(after[1]?.equals(changed(60_000))).toBe(true);
    await stage.close();
  });

  it('has the answer although rewriting a child fails', async () => {
    const stage = await quorumStage(
      [changed(0), ...same(2)],
      { 'vote-threshold': 2, 'rewrite-corrupted': true },
    );
    stage.host.faults.add({ operation: 'write', nth: 1, errno: 'EIO', path: '/c0' });
    const bytes = new Uint8Array(512);
    await stage.user.read(0, bytes);
    expect(Buffer.compare(bytes, pattern(SIZE).subarray(0, 512))).toBe(0);
    await stage.close();
  });

  it('of two children that may not differ fails the read that finds a difference', async () => {
    const stage = await quorumStage(
      [pattern(SIZE), changed(777)],
      { 'vote-threshold': 2, blkverify: true },
    );
    expect(await errorOf(() => stage.user.read(512, new Uint8Array(512)))).toMatchObject({
      message: expect.stringContaining('contents mismatch at offset 777') as string,
      errno: 'EIO',
    });
    await stage.user.read(1024, new Uint8Array(512));
    await stage.close();
  });

  it('passes when as many operations fail as it can bear, and fails with one more', async () => {
    for (const operation of ['read', 'write', 'sync'] as const) {
      for (const failing of [1, 2]) {
        const stage = await quorumStage(same(3), { 'vote-threshold': 2 });
        await stage.user.write(0, pattern(512));
        for (let index = 0; index < failing; index += 1) {
          const errno = 'ENOSPC';
          stage.host.faults.add({ operation, nth: 1, errno, path: `/c${index}` });
        }
        const { user } = stage;
        const act = {
          read: () => user.read(0, new Uint8Array(512)),
          write: () => user.write(0, pattern(512, 2)),
          sync: () => user.flush(),
        }[operation];
        if (failing === 1) await act();
        else expect(await errorOf(act)).toMatchObject({ errno: 'ENOSPC', kind: 'no-space' });
        const bad = Array.from({ length: failing }, (_, index) => `QUORUM_REPORT_BAD c${index}`);
        const failed = failing === 2 && operation !== 'sync' ? ['QUORUM_FAILURE q'] : [];
        expect(stage.events).toEqual([...bad, ...failed]);
        stage.host.faults.clear();
        await stage.close().catch(() => undefined);
      }
    }
  });

  it('reads from the next child when one fails, without a vote, by fifo', async () => {
    const stage = await quorumStage(
      [changed(0), ...same(2)],
      { 'vote-threshold': 3, 'read-pattern': 'fifo' },
    );
    const bytes = new Uint8Array(512);
    await stage.user.read(0, bytes);
    expect(Buffer.compare(bytes, changed(0).subarray(0, 512))).toBe(0);
    expect(stage.events).toEqual([]);
    stage.host.faults.add({ operation: 'read', nth: 1, errno: 'EIO', path: '/c0' });
    await stage.user.read(0, bytes);
    expect(Buffer.compare(bytes, pattern(SIZE).subarray(0, 512))).toBe(0);
    expect(stage.events).toEqual(['QUORUM_REPORT_BAD c0']);
    await stage.close();
  });

  it('shows zeroes only where every child has them', async () => {
    const host = new MemoryHost();
    const part = 256 * 1024;
    for (const [index, at] of [part, 2 * part, null].entries()) {
      await makeFile(host, `/h${index}`, 4 * part);
      if (at === null) continue;
      const file = await host.openFile(`/h${index}`, { readOnly: false });
      await file.write(new Uint8Array(part).fill(1), at);
      await file.close();
    }
    const graph = graphOn(host, [quorum as unknown as Driver<never>]);
    const children = [0, 1, 2].map((index) => ({ driver: 'file', filename: `/h${index}` }));
    const node = await graph.open({ driver: 'quorum', children, 'vote-threshold': 2 });
    const zeroes: [number, number][] = [];
    for (let offset = 0; offset < 4 * part; ) {
      const { length, zero } = await node.blockStatus(offset, 4 * part - offset, true);
      if (zero) zeroes.push([offset, length]);
      offset += length;
    }
    expect(zeroes).toEqual([
      [0, part],
      [3 * part, part],
    ]);
    await graph.closeAll();
  });

  it('grows with its children below a format, and they stay alike', async () => {
    const host = new MemoryHost();
    const graph = graphOn(host, [quorum, qcow2Driver] as unknown as Driver<never>[]);
    for (const path of ['/c0', '/c1', '/c2']) await makeFile(host, path, 0);
    const file = await graph.open({ driver: 'file', 'node-name': 'f', filename: '/c0' });
    const maker = await graph.attach(file, 'create', { taken: 11, shared: 15 });
    const context = { host, node: () => Promise.resolve(file) };
    await qcow2Driver.create?.(context, { file: 'f', size: 4 * 1024 * 1024 });
    await maker.detach();
    const image = new Uint8Array(file.length);
    const reader = await graph.attach(file, 'copy', READ_WRITE);
    await reader.read(0, image);
    await reader.detach();
    await graph.close(file);
    for (const path of ['/c1', '/c2']) await makeFile(host, path, image);
    const children = ['/c0', '/c1', '/c2'].map((filename) => ({ driver: 'file', filename }));
    const below = { driver: 'quorum', 'vote-threshold': 3, children };
    const node = await graph.open({ driver: 'qcow2', file: below });
    const user = await graph.attach(node, 'guest', READ_WRITE);
    await user.write(1_000_000, pattern(300_000));
    await user.flush();
    const back = new Uint8Array(300_000);
    await user.read(1_000_000, back);
    expect(Buffer.compare(back, pattern(300_000))).toBe(0);
    expect(await node.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
    await user.detach();
    await graph.closeAll();
    const stats = await Promise.all(['/c0', '/c1', '/c2'].map((path) => host.stat(path)));
    expect(new Set(stats.map((stat) => stat?.size)).size).toBe(1);
    expect(stats[0]?.size).toBeGreaterThan(image.length);
  });

  it('takes in and gives up children with their names, and asks them from then on', async () => {
    const stage = await quorumStage(same(2), { 'vote-threshold': 1 });
    const { graph, host } = stage;
    await makeFile(host, '/third', changed(0));
    const third = await graph.open({ driver: 'file', 'node-name': 'third', filename: '/third' });
    const q = graph.require('q');
    await graph.addChild(q, third);
    expect(q.options['children']).toEqual(['c0', 'c1', 'third']);
    await stage.user.read(0, new Uint8Array(512));
    expect(stage.events).toEqual(['QUORUM_REPORT_BAD third']);
    await graph.removeChild(q, 'children.0');
    expect(graph.find('c0')).toBeNull();
    expect([...q.children.keys()]).toEqual(['children.1', 'children.2']);
    expect(await errorOf(() => graph.removeChild(q, 'children.0'))).toMatchObject({
      message: "Node 'q' does not have child 'children.0'",
    });
    await graph.removeChild(q, 'children.2');
    expect(graph.find('third')).not.toBeNull();
    expect(await errorOf(() => graph.removeChild(q, 'children.1'))).toMatchObject({
      message: 'The number of children cannot be lower than the vote threshold 1',
    });
    await stage.close();
  });

  it('refuses a child that it may not write to with nothing changed', async () => {
    const stage = await quorumStage(same(2), { 'vote-threshold': 1 });
    const { graph, host, user } = stage;
    await makeFile(host, '/r', SIZE);
    const options = { driver: 'file', 'node-name': 'r', filename: '/r', 'read-only': true };
    const readOnly = await graph.open(options);
    const q = graph.require('q');
    const before = [q.filename, JSON.stringify(q.options), [...q.children.keys()].join()];
    expect(await errorOf(() => graph.addChild(q, readOnly))).toMatchObject({
      message: 'Block node is read-only',
    });
    expect([q.filename, JSON.stringify(q.options), [...q.children.keys()].join()]).toEqual(before);
    expect(readOnly.parents.size).toBe(0);
    await user.write(0, pattern(512, 9));
    await makeFile(host, '/w', SIZE);
    const writable = await graph.open({ driver: 'file', 'node-name': 'w', filename: '/w' });
    await graph.addChild(q, writable);
    expect([...q.children.keys()]).toEqual(['children.0', 'children.1', 'children.2']);
    await stage.close();
  });

  it('changes its children between requests that are running', async () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const host = new MemoryHost({ seed, laterChance: 0.8 });
      const stage = await quorumStage(same(2), { 'vote-threshold': 1 }, { host });
      const { graph, user } = stage;
      await makeFile(host, '/w', pattern(SIZE));
      const third = await graph.open({ driver: 'file', 'node-name': 'w', filename: '/w' });
      const q = graph.require('q');
      const writes = Array.from({ length: 20 }, (_, index) =>
        user.write(index * 1000, pattern(1500, index)),
      );
      const added = graph.addChild(q, third);
      writes.push(user.write(40_000, pattern(512, 77)));
      await added;
      const dropped = graph.removeChild(q, 'children.1');
      writes.push(user.write(50_000, pattern(512, 78)));
      await Promise.all([...writes, dropped]);
      expect([...q.children.keys()]).toEqual(['children.0', 'children.2']);
      const [first] = await stage.contents();
      await stage.close();
      const file = await host.openFile('/w', { readOnly: true });
      const bytes = Buffer.alloc(SIZE);
      await file.read(bytes, 0);
      await file.close();
      expect(bytes.subarray(50_000, 50_512).equals(pattern(512, 78))).toBe(true);
      expect(first?.subarray(50_000, 50_512).equals(pattern(512, 78))).toBe(true);
    }
  });

  it('lets nobody else write to a child or resize it', async () => {
    const stage = await quorumStage(same(2), { 'vote-threshold': 1 });
    for (const taken of [Permission.write, Permission.resize]) {
      const child = stage.graph.require('c1');
      const pair = { taken, shared: Permission.all };
      expect(await errorOf(() => stage.graph.attach(child, 'x', pair))).toMatchObject({
        message: expect.stringContaining("'children.1' child") as string,
      });
    }
    await stage.close();
  });

  it('opens by a name made of options, with its list in either spelling', async () => {
    const host = new MemoryHost();
    for (const path of ['/a', '/b']) await makeFile(host, path, pattern(SIZE));
    const graph = graphOn(host, [quorum as unknown as Driver<never>]);
    const files = ['/a', '/b'].map((filename) => ({ driver: 'file', filename }));
    for (const options of [
      { driver: 'quorum', 'vote-threshold': '2', children: files },
      {
        driver: 'quorum',
        'vote-threshold': 2,
        'children.0.driver': 'file',
        'children.0.filename': '/a',
        'children.1': { driver: 'file', filename: '/b' },
      },
    ]) {
      const node = await graph.openImage(`json:${JSON.stringify(options)}`, null, false);
      expect([...node.children.keys()]).toEqual(['children.0', 'children.1']);
      const name = JSON.parse(node.filename.slice('json:'.length)) as Record<string, unknown>;
      expect(name).toMatchObject({ driver: 'quorum', children: files });
      await graph.close(node);
    }
    await graph.closeAll();
  });
});
