// SPDX-License-Identifier: Apache-2.0
// Graph changes that meet others half-way, and failures after the point of no return.
import { describe, expect, it } from 'vitest';

import { BlockError, type Eventually } from '../../../src/base/index.js';
import {
  ChildRole,
  defineDriver,
  type Driver,
  type DriverNode,
  type Graph,
  type Node,
} from '../../../src/block/index.js';
import { blkdebug } from '../../../src/drivers/filters/blkdebug/index.js';
import { copyOnRead } from '../../../src/drivers/filters/copy-on-read/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_ONLY,
  READ_WRITE,
} from '../../helpers/graph.js';
import { createOn } from '../../helpers/qcow2-create.js';
import { testDriver } from '../../helpers/test-driver.js';

const MIB = 2 ** 20;
const DRIVERS = [qcow2Driver, blkdebug, copyOnRead] as unknown as readonly Driver<never>[];

async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

async function images(host: MemoryHost, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await createOn(host, `/${name}`, { driver: 'qcow2', size: MIB } as never);
  }
}

function openImage(graph: Graph, name: string, extra: object = {}): Promise<Node> {
  const file = { driver: 'file', filename: `/${name}` };
  return graph.open({ driver: 'qcow2', 'node-name': name, file, ...extra });
}

/** Every edge is known at both of its ends. */
function expectWhole(graph: Graph): void {
  const all = [...graph.nodes];
  for (const node of all) {
    for (const child of node.children.values()) expect(child.node.parents).toContain(child);
    for (const edge of node.parents) {
      const above = edge.parent.node;
      if (above !== null) expect(above.children.get(edge.name)).toBe(edge);
      expect(edge.node).toBe(node);
    }
  }
}

describe('two changes at once', () => {
  it('of one backing link leave the later one, and no edge that only one end knows', async () => {
    const host = new MemoryHost();
    await images(host, ['top', 'a', 'b', 'c']);
    const graph = graphOn(host, DRIVERS);
    const [top, a, b, c] = await Promise.all(
      ['top', 'a', 'b', 'c'].map((name) => openImage(graph, name)),
    );
    if (!top || !a || !b || !c) throw new Error('four nodes');
    await graph.setBacking(top, a);
    await Promise.all([graph.setBacking(top, b), graph.setBacking(top, c)]);
    expectWhole(graph);
    expect(top.backing).toBe(c);
    expect(top.options['backing']).toBe('c');
    expect([a.parents.size, b.parents.size]).toEqual([0, 0]);
    await graph.closeAll();
  });

  it('cannot close a cycle that neither alone would close', async () => {
    const host = new MemoryHost();
    await images(host, ['a', 'b']);
    const graph = graphOn(host, DRIVERS);
    const a = await openImage(graph, 'a', { 'read-only': true });
    const b = await openImage(graph, 'b', { 'read-only': true });
    const both = [graph.setBacking(a, b), graph.setBacking(b, a)];
    const outcomes = (await Promise.allSettled(both)).map(({ status }) => status);
    expect(outcomes).toEqual(['fulfilled', 'rejected']);
    await graph.closeAll();
    expect([...graph.nodes]).toEqual([]);
  });

  it('of one overlay: the second finds it in use', async () => {
    const host = new MemoryHost();
    await images(host, ['a', 'b', 'over']);
    const graph = graphOn(host, DRIVERS);
    const a = await openImage(graph, 'a');
    const b = await openImage(graph, 'b');
    const over = await openImage(graph, 'over', { backing: null });
    const both = [graph.appendOverlay(a, over), graph.appendOverlay(b, over)];
    const outcomes = (await Promise.allSettled(both)).map(({ status }) => status);
    expect(outcomes).toEqual(['fulfilled', 'rejected']);
    expectWhole(graph);
    expect(over.backing).toBe(a);
    await graph.closeAll();
    expect([...graph.nodes]).toEqual([]);
  });
});

/** A protocol whose instances are counted, reopened into others, and may be held while they are. */
function reopening(): {
  driver: Driver<never>;
  open: Set<object>;
  gate: Eventually<void>;
  failsToClose: boolean;
} {
  const open = new Set<object>();
  const make = (): DriverNode => {
    const node: DriverNode = {
      length: 512,
      limits: { requestAlignment: 1, maxTransfer: 0, optimalZeroes: 0, optimalDiscard: 0 },
      read: () => undefined,
      write: () => undefined,
      flush: () => undefined,
      async reopen() {
        await stage.gate;
        return make();
      },
      close() {
        open.delete(node);
        if (!stage.failsToClose) return Promise.resolve();
        return Promise.reject(new BlockError('io', 'cannot close'));
      },
    };
    open.add(node);
    return node;
  };
  const driver = defineDriver<never>({
    ...testDriver({ bytes: new Uint8Array(0) }).driver,
    name: 'counted',
    reopenOptions: [],
    supports: {
      ...testDriver({ bytes: new Uint8Array(0) }).driver.supports,
      writeZeroes: 'emulate',
      discard: 'none',
    },
    children: {},
    open: () => Promise.resolve(make()),
  });
  const stage = { driver, open, gate: undefined as Eventually<void>, failsToClose: false };
  return stage;
}

/** A format that only holds children. */
const holder = defineDriver<never>({
  ...testDriver({ bytes: new Uint8Array(0) }).driver,
  name: 'holder',
  kind: 'format',
  reopenOptions: [],
  supports: {
    ...testDriver({ bytes: new Uint8Array(0) }).driver.supports,
    read: 'pass',
    write: 'pass',
    flush: 'pass',
  },
  children: {
    file: { role: ChildRole.data | ChildRole.metadata | ChildRole.primary, required: true },
    backing: { role: ChildRole.cow, required: false },
  },
  open() {
    const instance: DriverNode = {
      length: 512,
      limits: { requestAlignment: 1, maxTransfer: 0, optimalZeroes: 0, optimalDiscard: 0 },
      reopen: () => Promise.resolve({ ...instance }),
      close: () => Promise.resolve(),
    };
    return Promise.resolve(instance);
  },
});

describe('a reopen', () => {
  it('of a node that is closed meanwhile is refused, and no instance stays open', async () => {
    const stage = reopening();
    const graph = graphOn(new MemoryHost(), [stage.driver]);
    const node = await graph.open({ driver: 'counted', 'node-name': 'n' });
    const user = await graph.attach(node, 'job', READ_ONLY);
    await graph.close(node);
    let go = (): void => undefined;
    stage.gate = new Promise<void>((resolve) => (go = resolve));
    const refusal = errorOf(() => graph.reopen([{ driver: 'counted', 'node-name': 'n' }]));
    await turn();
    await user.detach();
    go();
    expect(await refusal).toMatchObject({ kind: 'closed' });
    expect(stage.open.size).toBe(0);
    expect([...graph.nodes]).toEqual([]);
  });

  it('and a change of the backing link meanwhile leave options that are true', async () => {
    const stage = reopening();
    const graph = graphOn(new MemoryHost(), [stage.driver, holder]);
    const node = await graph.open({
      driver: 'holder',
      'node-name': 'n',
      file: { driver: 'counted' },
      backing: { driver: 'counted', 'node-name': 'below', 'read-only': true },
    });
    let go = (): void => undefined;
    stage.gate = new Promise<void>((resolve) => (go = resolve));
    const reopened = graph.reopen([{ driver: 'holder', 'node-name': 'n', backing: 'below' }]);
    await turn();
    const cut = graph.setBacking(node, null);
    await turn();
    go();
    await Promise.all([reopened, cut]);
    expect(node.backing).toBe(null);
    expect(node.options['backing']).toBe(null);
    await graph.closeAll();
    expect(stage.open.size).toBe(0);
  });

  it('stands, and its nodes work, when a child that it drops fails to close', async () => {
    const stage = reopening();
    const graph = graphOn(new MemoryHost(), [stage.driver, holder]);
    const node = await graph.open({
      driver: 'holder',
      'node-name': 'n',
      file: { driver: 'counted', 'node-name': 'one' },
    });
    await graph.open({ driver: 'counted', 'node-name': 'two' });
    stage.failsToClose = true;
    await graph.reopen([{ driver: 'holder', 'node-name': 'n', file: 'two', backing: null }]);
    expect([...graph.nodes].map(({ name }) => name)).toEqual(['n', 'two']);
    expect(node.primary?.name).toBe('two');
    const user = await graph.attach(node, 'guest', READ_WRITE);
    await user.write(0, new Uint8Array(512));
    await user.detach();
    stage.failsToClose = false;
    await graph.closeAll();
    expect(stage.open.size).toBe(0);
  });
});

describe('a changed backing link', () => {
  it('stands with its options when the node that it drops fails to close', async () => {
    const stage = reopening();
    const graph = graphOn(new MemoryHost(), [stage.driver, holder]);
    const node = await graph.open({
      driver: 'holder',
      'node-name': 'n',
      file: { driver: 'counted' },
      backing: { driver: 'counted', 'node-name': 'below', 'read-only': true },
    });
    stage.failsToClose = true;
    await graph.setBacking(node, null);
    expect(node.options['backing']).toBe(null);
    expect(graph.find('below')).toBe(null);
    stage.failsToClose = false;
    await graph.closeAll();
  });
});

describe('requests', () => {
  it('end where a node below takes less at once than one block of the node', async () => {
    for (const [align, transfer] of [[4096, 512], [1024, 1536]] as const) {
      const host = new MemoryHost();
      await makeFile(host, '/disk', 65_536);
      const graph = graphOn(host, DRIVERS);
      const node = await graph.open({
        driver: 'blkdebug',
        align,
        'max-write-zero': align,
        image: {
          driver: 'blkdebug',
          align: 512,
          'max-transfer': transfer,
          image: { driver: 'file', filename: '/disk' },
        },
      });
      const user = await graph.attach(node, 'guest', READ_WRITE);
      const data = pattern(16_384);
      await user.write(0, data);
      await user.write(100, data.subarray(100, 10_000));
      await user.writeZeroes(16_384, 20_000);
      const back = new Uint8Array(16_384);
      await user.read(0, back);
      expect(back).toEqual(data);
      await user.detach();
      await graph.closeAll();
    }
  });
});

describe('a node guessed to be raw', () => {
  it('keeps its guess when it is made writable later', async () => {
    const host = new MemoryHost();
    await makeFile(host, '/disk', 65_536);
    const graph = graphOn(host, DRIVERS);
    const node = await graph.openImage('/disk', null, true);
    expect(node.probedRaw).toBe(true);
    await graph.setReadOnly(node, false);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    const magic = new Uint8Array([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
    expect(await errorOf(() => user.write(0, magic))).toMatchObject({ kind: 'permission' });
    await user.detach();
    await graph.closeAll();
  });
});

describe('copy-on-read', () => {
  it('copies into the overlay that a snapshot has put below it', async () => {
    const host = new MemoryHost();
    await makeFile(host, '/base', pattern(MIB));
    await images(host, ['mid', 'over']);
    const graph = graphOn(host, DRIVERS);
    await graph.open({ driver: 'file', 'node-name': 'base', filename: '/base', 'read-only': true });
    const mid = await openImage(graph, 'mid', { backing: 'base' });
    const over = await openImage(graph, 'over', { backing: null });
    const filter = await graph.open({ driver: 'copy-on-read', 'node-name': 'cor', file: 'mid' });
    await graph.appendOverlay(mid, over);
    expect(filter.filtered).toBe(over);
    const user = await graph.attach(filter, 'guest', READ_WRITE);
    const bytes = new Uint8Array(65_536);
    await user.read(0, bytes);
    expect(bytes).toEqual(pattern(MIB).subarray(0, 65_536));
    expect((await over.blockStatus(0, 65_536, false)).allocated).toBe(true);
    expect((await mid.blockStatus(0, 65_536, false)).allocated).toBe(false);
    await user.detach();
    await graph.closeAll();
  });
});
