// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import {
  chainStatus,
  ChildRole,
  defineDriver,
  readRequest,
  type BlockStatus,
  type Driver,
  type Graph,
  type Node,
} from '../../../src/block/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_ONLY,
  READ_WRITE,
} from '../../helpers/graph.js';
import { testDriver } from '../../helpers/test-driver.js';

const SUPPORTS = {
  read: 'pass',
  write: 'pass',
  writeZeroes: 'pass',
  discard: 'pass',
  flush: 'pass',
  blockStatus: 'pass',
  truncate: 'pass',
  planExtents: 'none',
  reserve: 'none',
  compressedWrite: 'none',
  changeBacking: 'none',
  check: 'pass',
} as const;
const LIMITS = { requestAlignment: 1, maxTransfer: 0, optimalZeroes: 0, optimalDiscard: 0 };

const filter: Driver<{ closed: string[] }> = defineDriver({
  name: 'watch',
  kind: 'filter',
  supports: SUPPORTS,
  children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  open: (context, options: { closed: string[] }) =>
    Promise.resolve({
      get length() {
        return context.child('file').node.length;
      },
      limits: LIMITS,
      close: async () => void options.closed.push(context.node.name),
    }),
});

/** A layer of 4 KiB blocks, of which those in `holds` are its own. */
function layer(name: string, size: number, holds: readonly number[]): Driver<never> {
  return defineDriver<never>({
    name,
    kind: 'format',
    supports: { ...SUPPORTS, read: 'native', blockStatus: 'native' },
    children: { backing: { role: ChildRole.cow, required: false } },
    open: () =>
      Promise.resolve({
        length: size,
        limits: LIMITS,
        read: () => undefined,
        blockStatus(offset: number, length: number): BlockStatus {
          const block = Math.floor(offset / 4096);
          const own = holds.includes(block);
          const known = Math.min(length, (block + 1) * 4096 - offset);
          return { length: known, allocated: own, data: own, zero: false, compressed: false };
        },
        close: () => Promise.resolve(),
      }),
  });
}

async function chain(): Promise<{ graph: Graph; top: Node; middle: Node; base: Node }> {
  const drivers = [
    layer('top', 16_384, [0]),
    layer('middle', 12_288, [1]),
    layer('base', 8192, [1]),
  ];
  const graph = graphOn(new MemoryHost(), drivers);
  const ro = { 'read-only': true };
  const base = await graph.open({ driver: 'base', 'node-name': 'base', ...ro });
  const middle = await graph.open({
    driver: 'middle',
    'node-name': 'middle',
    backing: 'base',
    ...ro,
  });
  const top = await graph.open({ driver: 'top', 'node-name': 'top', backing: 'middle', ...ro });
  return { graph, top, middle, base };
}

describe('status of a chain', () => {
  it('names the layer that decides; a shorter layer reads zeroes from its end on', async () => {
    const { top, middle, base } = await chain();
    const at = (offset: number, to: Node | null): unknown =>
      chainStatus(top, to, { offset, length: 4096, exact: false });
    expect(at(0, null)).toMatchObject({ allocated: true, data: true, depth: 0 });
    expect(at(4096, null)).toMatchObject({ allocated: true, data: true, depth: 1 });
    expect(at(8192, null)).toMatchObject({ allocated: true, zero: true, data: false, depth: 2 });
    expect(at(12_288, null)).toMatchObject({ allocated: true, zero: true, depth: 1 });
    expect(at(4096, middle)).toMatchObject({ allocated: false, zero: false, depth: 0 });
    expect(at(8192, base)).toMatchObject({ allocated: false, zero: false, depth: 1 });
    const above = chainStatus(top, base, { offset: 4096, length: 8192, exact: false });
    expect(above).toMatchObject({ allocated: true, length: 4096 });
  });
});

describe('changes of a running graph', () => {
  it('a backing link is replaced, detached, and kept from closing a cycle', async () => {
    const { graph, top, middle, base } = await chain();
    const cycle = await errorOf(() => graph.setBacking(base, top));
    expect(cycle.message).toBe("Making 'top' a backing child of 'base' would create a cycle");
    await graph.setBacking(top, base);
    expect(top.backing).toBe(base);
    expect(middle.parents.size).toBe(0);
    expect(top.options['backing']).toBe('base');
    await graph.setBacking(top, null);
    expect(top.backing).toBe(null);
    await graph.closeAll();
    expect([...graph.nodes]).toEqual([]);
  });

  it('a frozen link is not replaced, and the refusal names the job', async () => {
    const { graph, top, middle, base } = await chain();
    const thaw = graph.freezeChain(top, base, 'job0');
    expect(top.children.get('backing')?.frozenBy).toBe('job0');
    expect((await errorOf(() => graph.setBacking(top, base))).message).toContain("'job0'");
    expect((await errorOf(() => graph.setBacking(middle, null))).message).toContain("'job0'");
    expect(await errorOf(() => graph.freezeChain(top, null, 'job1'))).toMatchObject({
      kind: 'busy',
    });
    thaw();
    await graph.setBacking(top, base);
    expect(top.backing).toBe(base);
  });

  it('a node that lost its last user is closed with the link', async () => {
    const { graph, top, middle } = await chain();
    await graph.close(middle);
    expect(graph.find('middle')).toBe(middle);
    await graph.setBacking(top, null);
    expect(graph.find('middle')).toBe(null);
    expect(graph.find('base')).not.toBe(null);
  });

  it('a filter takes over the parents and gives them back, requests going on', async () => {
    const device = testDriver({ bytes: pattern(4096) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    const below = await graph.open({ driver: 'test', 'node-name': 'below' });
    const user = await graph.attach(below, 'guest', READ_WRITE);
    const closed: string[] = [];
    const above = await graph.insertFilter({
      driver: filter as unknown as Driver<never>,
      name: 'above',
      below,
      internal: { closed },
    });
    expect(user.node).toBe(above);
    expect(above.filtered).toBe(below);
    await user.write(0, new Uint8Array(512).fill(5));
    expect(above.children.get('file')?.permissions.taken).toBe(READ_WRITE.taken);
    await graph.removeFilter(above);
    expect(user.node).toBe(below);
    expect(closed).toEqual(['above']);
    const buffer = new Uint8Array(512);
    await user.read(0, buffer);
    expect(buffer).toEqual(new Uint8Array(512).fill(5));
    expect([...graph.nodes].map(({ name }) => name)).toEqual(['below']);
  });

  it('a filter waits for what drivers above do on their own, too', async () => {
    const graph = graphOn(new MemoryHost({ seed: 3, laterChance: 1 }));
    await makeFile(graph.host, '/disk', 65_536);
    const below = await graph.openImage('/disk', 'raw', false);
    // As a format that punches freed clusters: no user, no request of its own.
    const background = async (): Promise<void> => {
      for (let count = 0; count < 50; count += 1) {
        await below.read(readRequest(0, new Uint8Array(512)));
      }
    };
    const running = background();
    const above = await graph.insertFilter({
      driver: filter as unknown as Driver<never>,
      name: 'above',
      below,
      internal: { closed: [] },
    });
    const again = background();
    await graph.removeFilter(above);
    await Promise.all([running, again]);
    expect([...graph.nodes].map(({ name }) => name)).not.toContain('above');
  });

  it('a filter refused by permissions leaves the graph as it was', async () => {
    const device = testDriver({ bytes: pattern(4096) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    const below = await graph.open({ driver: 'test', 'node-name': 'below' });
    const other = await graph.open({ driver: 'raw', 'node-name': 'other', file: 'below' });
    const writer = await graph.attach(other, 'writer', READ_WRITE);
    const reader = await graph.attach(other, 'reader', READ_ONLY);
    const greedy: Driver<{ closed: string[] }> = {
      ...filter,
      // Wants for itself what the reader's new neighbour cannot be denied.
      children: {
        ...filter.children,
        target: { role: ChildRole.metadata, required: true, permissions: 'format' },
      },
    };
    const closed: string[] = [];
    const refusal = await errorOf(() =>
      graph.insertFilter({
        driver: greedy as unknown as Driver<never>,
        name: 'above',
        below: other,
        internal: { closed },
        children: { target: below },
      }),
    );
    expect(refusal.message).toMatch(/^Permission conflict on node 'below'/);
    expect(writer.node).toBe(other);
    expect(reader.node).toBe(other);
    expect(other.parents.size).toBe(2);
    expect([...graph.nodes].map(({ name }) => name)).toEqual(['below', 'other']);
    await writer.write(0, new Uint8Array(512));
    await (await graph.attach(below, 'another', READ_WRITE)).detach();
  });
});
