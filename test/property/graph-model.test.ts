// SPDX-License-Identifier: Apache-2.0
// Random commands on a graph of images, with faults: what is refused changes nothing, and what
// stands is consistent; at the end no lock and no file is left.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { BlockError } from '../../src/base/index.js';
import type { Driver, Graph, Node } from '../../src/block/index.js';
import { qcow2Driver } from '../../src/drivers/formats/qcow2/index.js';
import { MemoryHost } from '../../src/host/index.js';
import type { HostOperation } from '../../src/host/index.js';
import { graphOn, pattern, READ_WRITE } from '../helpers/graph.js';
import { createOn } from '../helpers/qcow2-create.js';
import { runs } from '../helpers/seeds.js';

const MIB = 2 ** 20;
const NAMES = ['a', 'b', 'c', 'd'] as const;
type Name = (typeof NAMES)[number];

const name = fc.constantFrom(...NAMES);
const reopened = fc.record({
  node: name,
  readOnly: fc.boolean(),
  backing: fc.oneof(fc.constant(null), name),
  file: fc.option(name, { nil: undefined, freq: 6 }),
  bad: fc.boolean(),
});
const command = fc.oneof(
  fc.record({
    kind: fc.constant('reopen' as const),
    list: fc.array(reopened, { minLength: 1, maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant('overlay' as const), node: name, overlay: name }),
  fc.record({ kind: fc.constant('write' as const), node: name, seed: fc.nat(100) }),
  fc.record({ kind: fc.constant('resize' as const), node: name, grow: fc.nat(4) }),
  fc.record({
    kind: fc.constant('fault' as const),
    operation: fc.constantFrom<HostOperation>('open', 'read', 'write', 'sync'),
    nth: fc.integer({ min: 1, max: 10 }),
  }),
);
type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;

async function stage(): Promise<{ host: MemoryHost; graph: Graph }> {
  const host = new MemoryHost();
  const graph = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
  for (const each of NAMES) {
    await createOn(host, `/${each}`, { driver: 'qcow2', size: MIB } as never);
    const file = { driver: 'file', 'node-name': `${each}-file`, filename: `/${each}` };
    await graph.open(file);
    await graph.open({ driver: 'qcow2', 'node-name': each, file: `${each}-file` });
  }
  return { host, graph };
}

async function run(host: MemoryHost, graph: Graph, step: Command): Promise<void> {
  switch (step.kind) {
    case 'reopen':
      await graph.reopen(
        step.list.map(({ node, readOnly, backing, file, bad }) => ({
          driver: 'qcow2',
          'node-name': node,
          'read-only': readOnly,
          backing,
          file: `${file ?? node}-file`,
          ...(bad && readOnly ? { 'detect-zeroes': 'unmap' } : {}),
        })),
      );
      return;
    case 'overlay':
      await graph.appendOverlay(graph.require(step.node), graph.require(step.overlay));
      return;
    case 'resize':
      await graph.require(step.node).truncate(MIB + step.grow * 65_536);
      return;
    case 'write': {
      const user = await graph.attach(graph.require(step.node), 'guest', READ_WRITE);
      try {
        await user.write((step.seed % 16) * 65_536, pattern(65_536, step.seed + 1));
      } finally {
        await user.detach();
      }
      return;
    }
    case 'fault':
      host.faults.add({ operation: step.operation, nth: step.nth, errno: 'EIO' });
  }
}

function picture(graph: Graph): unknown {
  return [...graph.nodes].map((node) => ({
    name: node.name,
    readOnly: node.readOnly,
    options: { ...node.options },
    // A file grows as the image above it flushes, which a reopen may do before it is refused.
    length: node.driver.name === 'file' ? 'of a file' : node.length,
    instance: node.driverNode,
    edges: [...node.children.values()].map((child) => [
      child.name,
      child.node.name,
      { ...child.permissions },
    ]),
  }));
}

function checkConsistent(graph: Graph): void {
  const all = [...graph.nodes];
  for (const node of all) {
    expect(isBelow(node, node)).toBe(false);
    for (const child of node.children.values()) {
      expect(child.node.parents.has(child)).toBe(true);
      expect(all).toContain(child.node);
      if ((child.permissions.taken & 2) !== 0) expect(child.node.readOnly).toBe(false);
    }
    const edges = [...node.parents];
    for (const one of edges) {
      for (const other of edges) {
        if (one !== other) expect(one.permissions.taken & ~other.permissions.shared).toBe(0);
      }
    }
  }
}

function isBelow(node: Node, above: Node): boolean {
  return [...above.children.values()].some(
    (child) => child.node === node || isBelow(node, child.node),
  );
}

async function lockable(host: MemoryHost): Promise<boolean> {
  for (const each of NAMES) {
    const file = await host.openFile(`/${each as Name}`, { readOnly: false });
    file.lock({ taken: 15, unshared: 15 });
    await file.close();
  }
  return true;
}

async function expectClean(host: MemoryHost): Promise<void> {
  const graph = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
  for (const each of NAMES) {
    const node = await graph.openImage(`/${each}`, 'qcow2', true);
    const { corruptions, leaks } = await node.check('none');
    expect([each, corruptions, leaks]).toEqual([each, 0, 0]);
  }
  await graph.closeAll();
}

describe('random commands on a graph', () => {
  it('change it wholly or not at all, and leave no lock behind', () =>
    fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 12 }), async (commands) => {
        const { host, graph } = await stage();
        for (const step of commands) {
          const before = picture(graph);
          const atomic = step.kind === 'reopen' || step.kind === 'overlay';
          try {
            await run(host, graph, step);
          } catch (error) {
            expect(error).toBeInstanceOf(BlockError);
            if (atomic) expect(picture(graph)).toEqual(before);
          }
          checkConsistent(graph);
        }
        host.faults.clear();
        await graph.closeAll().catch(() => undefined);
        expect([...graph.nodes]).toEqual([]);
        expect(await lockable(host)).toBe(true);
        if (!commands.some(({ kind }) => kind === 'fault')) await expectClean(host);
      }),
      { numRuns: runs(50, 500) },
    ));
});
