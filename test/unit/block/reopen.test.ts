// SPDX-License-Identifier: Apache-2.0
// What a reopen leaves behind: bytes, graph, files and locks, after success and after every fault.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import type { Driver, Graph, Node, NodeOptions } from '../../../src/block/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import type { HostOperation } from '../../../src/host/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import { errorOf, graphOn, makeFile, pattern, READ_WRITE } from '../../helpers/graph.js';
import { createOn } from '../../helpers/qcow2-create.js';

const MIB = 2 ** 20;
const file = (name: string): NodeOptions => ({ driver: 'file', filename: `/${name}` });
const top = (extra: Record<string, unknown> = {}): NodeOptions => ({
  driver: 'qcow2',
  'node-name': 'top',
  file: file('top'),
  ...extra,
});
const base = (extra: Record<string, unknown> = {}): NodeOptions => ({
  driver: 'qcow2',
  'node-name': 'base',
  file: file('base'),
  ...extra,
});
const disk = (extra: Record<string, unknown> = {}): NodeOptions => ({
  driver: 'file',
  'node-name': 'disk',
  filename: '/disk',
  ...extra,
});

interface Stage {
  readonly host: MemoryHost;
  readonly faults: MemoryHost['faults'];
  readonly graph: Graph;
}

/** Nodes top over base (both writable), and disk. */
async function stage(): Promise<Stage> {
  const host = new MemoryHost();
  await createOn(host, '/base', { driver: 'qcow2', size: MIB } as never);
  const backing = { 'backing-file': '/base', 'backing-fmt': 'qcow2' };
  await createOn(host, '/top', { driver: 'qcow2', size: MIB, ...backing } as never);
  await makeFile(host, '/disk', MIB);
  const graph = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
  await graph.open(base());
  await graph.open(top({ backing: 'base' }));
  await graph.open(disk());
  return { host, faults: host.faults, graph };
}

function find(graph: Graph, name: string): Node {
  const node = graph.find(name);
  if (node === null) throw new Error(`no node ${name}`);
  return node;
}

/** All that can be seen of the graph, instances included. */
function picture(graph: Graph): unknown {
  return [...graph.nodes].map((node) => ({
    name: node.name,
    readOnly: node.readOnly,
    options: { ...node.options },
    filename: node.filename,
    length: node.length,
    instance: node.driverNode,
    children: [...node.children.values()].map((child) => [
      child.name,
      child.node.name,
      { ...child.permissions },
    ]),
    parents: node.parents.size,
  }));
}

/** Whether each file can be locked for writing by someone else. */
async function lockable(host: MemoryHost): Promise<boolean[]> {
  const answers = [];
  for (const name of ['/base', '/top', '/disk']) {
    const other = await host.openFile(name, { readOnly: true });
    try {
      other.lock({ taken: 2, unshared: 2 });
      answers.push(true);
    } catch {
      answers.push(false);
    }
    await other.close();
  }
  return answers;
}

async function writeTo(graph: Graph, name: string, seed: number): Promise<void> {
  const user = await graph.attach(find(graph, name), 'guest', READ_WRITE);
  await user.write(0, pattern(8192, seed));
  await user.detach();
}

/** The top image as another program opens it. */
async function open(host: MemoryHost): Promise<{ again: Graph; node: Node }> {
  const again = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
  return { again, node: await again.openImage('/top', 'qcow2', true) };
}

describe('a reopen', () => {
  it('to read-only leaves all of the image on disk, and gives up the lock', async () => {
    const { host, graph } = await stage();
    await writeTo(graph, 'top', 3);
    expect(await lockable(host)).toEqual([false, false, true]);
    const refused = await errorOf(() => open(host));
    expect(refused.message).toContain('lock');
    const readOnly = { 'read-only': true };
    await graph.reopen([top({ backing: 'base', ...readOnly }), base(readOnly)]);
    expect(find(graph, 'top').readOnly).toBe(true);
    expect((await find(graph, 'top').check('none')).corruptions).toBe(0);
    const { again, node: other } = await open(host);
    const buffer = new Uint8Array(8192);
    const user = await again.attach(other, 'reader', { taken: 1, shared: 15 });
    await user.read(0, buffer);
    expect(buffer).toEqual(pattern(8192, 3));
    await user.detach();
    await again.closeAll();
    await graph.closeAll();
  });

  it('back to read-write takes writes, which a later open finds', async () => {
    const { host, graph } = await stage();
    await writeTo(graph, 'top', 3);
    await graph.reopen([top({ backing: 'base', 'read-only': true })]);
    const refused = await errorOf(() => writeTo(graph, 'top', 4));
    expect(refused.message).toContain('read-only');
    await graph.reopen([top({ backing: 'base' })]);
    await writeTo(graph, 'top', 5);
    await graph.closeAll();
    const again = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
    const node = await again.openImage('/top', 'qcow2', false);
    const buffer = new Uint8Array(8192);
    const user = await again.attach(node, 'reader', { taken: 1, shared: 15 });
    await user.read(0, buffer);
    expect(buffer).toEqual(pattern(8192, 5));
    await user.detach();
    expect((await node.check('none')).leaks).toBe(0);
    await again.closeAll();
  });

  it('shows another backing file at once, and closes the one that nobody has', async () => {
    const { graph } = await stage();
    await writeTo(graph, 'disk', 9);
    await graph.reopen([top({ backing: 'disk' })]);
    const user = await graph.attach(find(graph, 'top'), 'guest', READ_WRITE);
    const buffer = new Uint8Array(8192);
    await user.read(0, buffer);
    expect(buffer).toEqual(pattern(8192, 9));
    await user.detach();
    await graph.close(find(graph, 'disk'));
    expect(graph.find('disk')).not.toBeNull();
    await graph.reopen([top({ backing: null })]);
    expect(graph.find('disk')).toBeNull();
    await graph.closeAll();
  });

  it('reads the tables of another file', async () => {
    const { host, graph } = await stage();
    await createOn(host, '/twin', { driver: 'qcow2', size: 2 * MIB } as never);
    await graph.open({ driver: 'file', 'node-name': 'twin', filename: '/twin' });
    await graph.reopen([top({ backing: null, file: 'twin' })]);
    expect(find(graph, 'top').length).toBe(2 * MIB);
    await writeTo(graph, 'top', 7);
    expect((await find(graph, 'top').check('none')).leaks).toBe(0);
    const refused = await errorOf(() => graph.reopen([top({ backing: null, file: 'disk' })]));
    expect(refused).toBeInstanceOf(BlockError);
    expect(find(graph, 'top').length).toBe(2 * MIB);
    await graph.closeAll();
  });

  it('of a node that is not there is refused, and the others stay as they are', async () => {
    const { graph } = await stage();
    const before = picture(graph);
    const list = [disk(), { driver: 'raw', 'node-name': 'no' }];
    const refused = await errorOf(() => graph.reopen(list));
    expect(refused.message).toBe("Failed to find node with node-name='no'");
    expect(picture(graph)).toEqual(before);
    await graph.closeAll();
  });

  it('refuses to open another file that took the name', async () => {
    const { host, graph } = await stage();
    const before = picture(graph);
    await host.removeFile('/disk');
    await makeFile(host, '/disk', MIB);
    const refused = await errorOf(() => graph.reopen([disk({ 'read-only': true })]));
    expect(refused.message).toContain('another file has taken its name');
    expect(picture(graph)).toEqual(before);
    await graph.closeAll();
  });
});

const OPERATIONS: readonly HostOperation[] = ['open', 'read', 'write', 'sync'];

/** Lists that reopen some nodes; each is fine when nothing fails. */
const LISTS: readonly (readonly NodeOptions[])[] = [
  [top({ backing: 'base', 'read-only': true }), disk({ 'read-only': true })],
  [top({ backing: 'disk', 'read-only': true }), base({ 'read-only': true, backing: null })],
  [disk({ cache: { 'no-flush': true } }), top({ backing: null }), base({ 'read-only': true })],
  [base({ 'read-only': true }), top({ backing: base({ 'node-name': 'base' })['node-name'] })],
];

describe('a fault anywhere in a reopen', () => {
  it('leaves graph, files and locks as they were, or the reopen has happened', () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...OPERATIONS),
        fc.integer({ min: 1, max: 12 }),
        fc.constantFrom(...LISTS),
        fc.boolean(),
        async (operation, nth, list, bad) => {
          const { host, faults, graph } = await stage();
          await writeTo(graph, 'top', 1);
          const before = picture(graph);
          const locks = await lockable(host);
          faults.add({ operation, nth, errno: 'EIO' });
          const refusable = bad ? [...list, { ...disk(), 'node-name': 'top' }] : list;
          const failure = await graph.reopen(refusable).then(
            () => null,
            (error: unknown) => error,
          );
          faults.clear();
          if (failure !== null) {
            expect(failure).toBeInstanceOf(BlockError);
            expect(picture(graph)).toEqual(before);
            expect(await lockable(host)).toEqual(locks);
          } else {
            expect(bad).toBe(false);
          }
          await graph.closeAll().catch(() => undefined);
          expect(await lockable(host)).toEqual([true, true, true]);
        },
      ),
      { numRuns: 150 },
    ));

  it('a conflict of permissions after the instances have switched puts all back', async () => {
    const { host, graph } = await stage();
    const user = await graph.attach(find(graph, 'disk'), 'guest', READ_WRITE);
    const before = picture(graph);
    const locks = await lockable(host);
    const list = [top({ backing: null, 'read-only': true }), disk({ 'read-only': true })];
    const refused = await errorOf(() => graph.reopen(list));
    expect(refused.message).toBe("Read-only block node 'disk' cannot support read-write users");
    expect(picture(graph)).toEqual(before);
    expect(await lockable(host)).toEqual(locks);
    await user.write(0, pattern(512));
    await user.detach();
    await graph.closeAll();
    expect(await lockable(host)).toEqual([true, true, true]);
  });

  it('a lock that another holds keeps the node read-only', async () => {
    const { host, graph } = await stage();
    await graph.reopen([top({ backing: 'base', 'read-only': true })]);
    await graph.reopen([base({ 'read-only': true })]);
    const other = await host.openFile('/base', { readOnly: false });
    other.lock({ taken: 1, unshared: 2 });
    const before = picture(graph);
    const refused = await errorOf(() => graph.reopen([base()]));
    expect(refused.message).toBe('Failed to get "write" lock');
    expect(picture(graph)).toEqual(before);
    await other.close();
    await graph.reopen([base()]);
    expect(find(graph, 'base').readOnly).toBe(false);
    await graph.closeAll();
  });
});
