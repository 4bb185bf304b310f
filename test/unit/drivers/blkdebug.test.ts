// SPDX-License-Identifier: Apache-2.0
// Errors at chosen points: which requests meet a rule, and what a format does about it.
import { describe, expect, it } from 'vitest';

import type { Backend, Driver, Graph, Node, NodeOptions } from '../../../src/block/index.js';
import { blkdebug } from '../../../src/drivers/filters/blkdebug/index.js';
import type { BlkdebugOptions } from '../../../src/drivers/filters/blkdebug/options.js';
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
import { testDriver } from '../../helpers/test-driver.js';
import type { TestDriver } from '../../helpers/test-driver.js';

const KIB = 1024;

type Rules = Partial<Omit<BlkdebugOptions, 'image'>>;

interface Stage {
  readonly graph: Graph;
  readonly node: Node;
  readonly user: Backend;
  readonly below: TestDriver;
}

async function stage(rules: Rules, bytes = new Uint8Array(64 * KIB)): Promise<Stage> {
  const below = testDriver({ bytes });
  const graph = graphOn(new MemoryHost(), [below.driver, blkdebug as unknown as Driver<never>]);
  const options = { driver: 'blkdebug', image: { driver: 'test' }, discard: 'unmap', ...rules };
  const node = await graph.open(options as NodeOptions);
  return { graph, node, below, user: await graph.attach(node, 'guest', READ_WRITE) };
}

const buffer = (): Uint8Array => new Uint8Array(512);

describe('blkdebug', () => {
  it('fails what its rule covers, with its errno, and nothing else', async () => {
    const { user, below } = await stage({
      'inject-error': [{ event: 'none', iotype: 'write', errno: 28, sector: 4 }],
    });
    await user.write(0, new Uint8Array(2048));
    await user.read(0, new Uint8Array(4096));
    for (const offset of [2048, 1536]) {
      const error = await errorOf(() => user.write(offset, new Uint8Array(1024)));
      expect(error).toMatchObject({ kind: 'no-space', message: 'No space left on device' });
    }
    await user.write(2560, buffer());
    await user.writeZeroes(2048, 512);
    expect(below.calls.filter(({ kind }) => kind === 'write')).toHaveLength(2);
  });

  it('without a type covers everything but block status', async () => {
    const { user, node } = await stage({ 'inject-error': [{ event: 'none' }] });
    const failing = [
      () => user.read(0, buffer()),
      () => user.write(0, buffer()),
      () => user.writeZeroes(0, 512),
      () => user.discard(0, 512),
      () => user.flush(),
    ];
    for (const request of failing) expect(await errorOf(request)).toMatchObject({ errno: 'EIO' });
    expect((await node.blockStatus(0, 512, false)).length).toBe(512);
  });

  it('a rule for one sector spares flushes', async () => {
    const { user } = await stage({ 'inject-error': [{ event: 'none', sector: 0 }] });
    await user.flush();
    expect(await errorOf(() => user.read(0, buffer()))).toMatchObject({ errno: 'EIO' });
  });

  it('fails once when told so, at once or later', async () => {
    for (const immediately of [true, false]) {
      const rule = { event: 'none', once: true, immediately } as const;
      const { user } = await stage({ 'inject-error': [rule] });
      let inline = false;
      try {
        const result = user.read(0, buffer());
        await expect(result).rejects.toMatchObject({ errno: 'EIO' });
      } catch {
        inline = true;
      }
      expect(inline).toBe(immediately);
      await user.read(0, buffer());
    }
  });

  it('states decide which rules an event arms', async () => {
    const { user } = await stage({
      'set-state': [
        { event: 'pwritev', state: 1, new_state: 2 },
        { event: 'pwritev', state: 2, new_state: 3 },
      ],
      'inject-error': [{ event: 'pwritev', state: 3, iotype: 'read' }],
    });
    await user.write(0, buffer());
    await user.read(0, buffer());
    await user.write(0, buffer());
    await user.read(0, buffer());
    await user.write(0, buffer());
    expect(await errorOf(() => user.read(0, buffer()))).toMatchObject({ errno: 'EIO' });
  });

  it('an event that arms rules disarms those armed before', async () => {
    const { user } = await stage({
      'inject-error': [
        { event: 'none', iotype: 'read' },
        { event: 'pwritev_done', iotype: 'flush' },
      ],
    });
    expect(await errorOf(() => user.read(0, buffer()))).toMatchObject({ errno: 'EIO' });
    await user.write(0, buffer());
    await user.read(0, buffer());
    expect(await errorOf(() => user.flush())).toMatchObject({ errno: 'EIO' });
  });

  it('reading and merging the ends of a write are events', async () => {
    const events = ['head', 'after_head', 'tail', 'after_tail'] as const;
    for (const event of events) {
      const { user } = await stage({
        align: 4096,
        'inject-error': [{ event: `pwritev_rmw_${event}` }],
      });
      await user.write(0, new Uint8Array(4096));
      const error = await errorOf(() => user.write(1024, new Uint8Array(4096)));
      expect(error).toMatchObject({ errno: 'EIO' });
    }
  });

  it('splits what goes to the child as its limits say', async () => {
    const { user, below } = await stage({
      align: 512,
      'max-transfer': 1024,
      'opt-write-zero': 2048,
      'max-write-zero': 4096,
      'opt-discard': 1024,
      'max-discard': 3072,
    });
    await user.write(512, pattern(2560));
    await user.writeZeroes(1024, 12 * KIB);
    await user.discard(512, 8 * KIB);
    const pieces = (kind: string): number[][] =>
      below.calls
        .filter((call) => call.kind === kind)
        .map(({ offset, length }) => [offset, length]);
    expect(pieces('write').every(([, length]) => (length ?? 0) <= 1024)).toBe(true);
    // What is less than the best length is written out.
    expect(pieces('write-zeroes')).toEqual([
      [2048, 4096],
      [6144, 4096],
      [10_240, 2048],
    ]);
    expect(pieces('discard')).toEqual([
      [512, 512],
      [1024, 3072],
      [4096, 3072],
      [7168, 1024],
      [8192, 512],
    ]);
  });

  it('takes and withholds permissions on its child', async () => {
    const { graph, node, user } = await stage({
      'take-child-perms': ['write'],
      'unshare-child-perms': ['resize'],
    });
    await user.detach();
    const child = node.children.get('image');
    expect(child?.permissions).toEqual({ taken: 2, shared: 7 });
    const other = { taken: 8, shared: 15 };
    const below = child?.node as Node;
    expect((await errorOf(() => graph.attach(below, 'other', other))).message).toContain(
      "unshared by node '",
    );
    await (await graph.attach(below, 'reader', READ_ONLY)).detach();
  });
});

interface Qcow2Stage {
  readonly graph: Graph;
  readonly user: Backend;
  /** Those that open the image without rules. */
  readonly options: NodeOptions;
}

async function qcow2Over(rules: Rules): Promise<Qcow2Stage> {
  const host = new MemoryHost();
  const drivers = [qcow2Driver, blkdebug].map((one) => one as unknown as Driver<never>);
  const graph = graphOn(host, drivers);
  await makeFile(host, '/disk', 0);
  const file = await graph.open({ driver: 'file', 'node-name': 'new', filename: '/disk' });
  const maker = await graph.attach(file, 'create', { taken: 11, shared: 15 });
  await qcow2Driver.create?.(
    { host, node: () => Promise.resolve(file) },
    { file: 'new', size: 2 ** 20 },
  );
  await maker.detach();
  await graph.close(file);
  const options = (debug: Rules): NodeOptions => ({
    driver: 'qcow2',
    discard: 'unmap',
    file: { driver: 'blkdebug', image: { driver: 'file', filename: '/disk' }, ...debug },
  });
  const node = await graph.open(options(rules));
  const user = await graph.attach(node, 'guest', READ_WRITE);
  return { graph, user, options: options({}) };
}

describe('qcow2 over blkdebug', () => {
  const steps: readonly [string, (user: Backend) => void | Promise<void>][] = [
    ['write', (user) => user.write(1000, pattern(70_000))],
    ['flush', (user) => user.flush()],
    ['overwrite', (user) => user.write(1000, pattern(70_000, 2))],
    ['read', (user) => user.read(1000, new Uint8Array(70_000))],
    ['discard', (user) => user.discard(65_536, 65_536)],
    ['last flush', (user) => user.flush()],
  ];

  /** Steps that fail after `event` armed an error for that kind of request. */
  async function failing(
    event: NonNullable<Rules['inject-error']>[number]['event'],
    iotype: 'read' | 'write' | 'flush',
  ): Promise<string[]> {
    const { graph, user } = await qcow2Over({ 'inject-error': [{ event, iotype }] });
    const failed: string[] = [];
    for (const [name, run] of steps) {
      try {
        await run(user);
      } catch {
        failed.push(name);
      }
    }
    await user.detach();
    await graph.closeAll().catch(() => undefined);
    return failed;
  }

  it.each([
    ['cluster_alloc', 'write', 'write'],
    ['l2_alloc_write', 'write', 'write'],
    ['refblock_load', 'write', 'write'],
    ['cow_read', 'write', 'write'],
    ['write_aio', 'write', 'write'],
    ['read_aio', 'read', 'read'],
    ['flush_to_os', 'flush', 'flush'],
    ['flush_to_disk', 'flush', 'flush'],
    ['l2_update', 'write', 'flush'],
    ['l1_update', 'write', 'flush'],
    ['refblock_update_part', 'write', 'flush'],
    ['cluster_free', 'flush', 'last flush'],
  ] as const)('passes %s: a failing %s then makes the %s fail first', async (event, io, step) => {
    expect((await failing(event, io))[0]).toBe(step);
  });

  it('after a single failure of a write the image is sound once it is closed', async () => {
    const events = ['l2_update', 'l1_update', 'refblock_update_part', 'write_aio'] as const;
    for (const event of events) {
      const rules = { 'inject-error': [{ event, once: true, iotype: 'write' as const }] };
      const { graph, user, options } = await qcow2Over(rules);
      for (const [, run] of steps) {
        try {
          await run(user);
        } catch {
          // The next step goes on from there.
        }
      }
      await user.flush();
      await user.detach();
      await graph.closeAll();
      const again = await graph.open(options);
      expect(await again.check('none')).toMatchObject({ corruptions: 0 });
      await graph.closeAll();
    }
  });

  it('a refcount table that cannot be read refuses the image', async () => {
    const refused = qcow2Over({ 'inject-error': [{ event: 'reftable_load' }] });
    await expect(refused).rejects.toMatchObject({ errno: 'EIO' });
  });
});

describe('names of blkdebug nodes', () => {
  it('open the same node again', async () => {
    const host = new MemoryHost();
    const graph = graphOn(host, [blkdebug as unknown as Driver<never>]);
    await makeFile(host, '/disk', 4096);
    const image = { driver: 'file', filename: '/disk' };
    const plain = await graph.open({ driver: 'blkdebug', image });
    expect(plain.filename).toBe('blkdebug::/disk');
    const rules = [{ event: 'none', errno: 28, once: true }];
    const node = await graph.open({ driver: 'blkdebug', image, 'inject-error': rules });
    expect(JSON.parse(node.filename.slice('json:'.length))).toEqual({
      driver: 'blkdebug',
      image,
      'inject-error.0.event': 'none',
      'inject-error.0.errno': 28,
      'inject-error.0.once': true,
    });
    const again = await graph.openImage(node.filename, null, true);
    expect(again.options['inject-error']).toEqual(rules);
    const probed = await graph.openImage('blkdebug::/disk', 'raw', true);
    expect(probed.primary?.driver.name).toBe('blkdebug');
    await graph.closeAll();
  });
});
