// SPDX-License-Identifier: Apache-2.0
// compress and blkverify as a user adds them.
import { describe, expect, it } from 'vitest';

import type { Backend, Driver, Graph, NodeOptions } from '../../../src/block/index.js';
import { blkdebug } from '../../../src/drivers/filters/blkdebug/index.js';
import { blkverify } from '../../../src/drivers/filters/blkverify/index.js';
import { compress } from '../../../src/drivers/filters/compress/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_WRITE,
} from '../../helpers/graph.js';

const KIB = 1024;

function graphWith(host: MemoryHost): Graph {
  const drivers = [blkdebug, blkverify, compress, qcow2Driver];
  return graphOn(host, drivers as unknown as Driver<never>[]);
}

describe('compress', () => {
  async function stage(size: number): Promise<{ graph: Graph; user: Backend }> {
    const host = new MemoryHost();
    const graph = graphWith(host);
    await makeFile(host, '/disk', 0);
    const file = await graph.open({ driver: 'file', 'node-name': 'f', filename: '/disk' });
    const maker = await graph.attach(file, 'create', { taken: 11, shared: 15 });
    const context = { host, node: () => Promise.resolve(file) };
    await qcow2Driver.create?.(context, { file: 'f', size });
    await maker.detach();
    await graph.open({ driver: 'qcow2', 'node-name': 'q', file: 'f' });
    const node = await graph.open({ driver: 'compress', file: 'q', discard: 'unmap' });
    return { graph, user: await graph.attach(node, 'guest', READ_WRITE) };
  }

  it('what is written is stored compressed, and zeroes without data', async () => {
    const { graph, user } = await stage(512 * KIB);
    await user.write(3000, new Uint8Array(100_000).fill(7));
    await user.writeZeroes(256 * KIB, 64 * KIB);
    const image = graph.require('q');
    const compressed = async (offset: number): Promise<boolean> =>
      (await image.blockStatus(offset, 512, false)).compressed;
    expect([await compressed(0), await compressed(65_536)]).toEqual([true, true]);
    expect(await image.blockStatus(256 * KIB, 512, false)).toMatchObject({ zero: true });
    expect(await image.check('none')).toMatchObject({ corruptions: 0, compressedClusters: 2 });
    await user.detach();
    await graph.closeAll();
  });

  it('an image that ends within a cluster is written to its end', async () => {
    const { graph, user } = await stage(100 * KIB);
    await user.write(99 * KIB, pattern(KIB));
    const bytes = new Uint8Array(KIB);
    await user.read(99 * KIB, bytes);
    expect(Buffer.from(bytes).equals(Buffer.from(pattern(KIB)))).toBe(true);
    await user.detach();
    await graph.closeAll();
  });

  it('refuses a format that cannot store it', async () => {
    const host = new MemoryHost();
    const graph = graphWith(host);
    await makeFile(host, '/disk', 4096);
    const file = { driver: 'file', filename: '/disk' };
    expect((await errorOf(() => graph.open({ driver: 'compress', file }))).message).toBe(
      'Compression is not supported for underlying format: file',
    );
    expect([...graph.nodes]).toEqual([]);
  });
});

describe('blkverify', () => {
  const rules = (sector: number): object => ({
    driver: 'blkdebug',
    image: { driver: 'raw', file: { driver: 'file', filename: '/test' } },
    'inject-error': [{ event: 'none', sector }],
  });

  async function stage(test: object): Promise<{ graph: Graph; user: Backend }> {
    const host = new MemoryHost();
    const graph = graphWith(host);
    await makeFile(host, '/test', 64 * KIB);
    await makeFile(host, '/raw', 64 * KIB);
    const raw = { driver: 'raw', 'node-name': 'raw', file: { driver: 'file', filename: '/raw' } };
    const node = await graph.open({ driver: 'blkverify', test, raw } as NodeOptions);
    return { graph, user: await graph.attach(node, 'guest', READ_WRITE) };
  }

  const plain = { driver: 'raw', file: { driver: 'file', filename: '/test' } };

  it('passes what is the same on both sides and says where it is not', async () => {
    const { graph, user } = await stage(plain);
    await user.write(1000, pattern(5000));
    await user.writeZeroes(2000, 100);
    await user.read(0, new Uint8Array(64 * KIB));
    const other = await graph.attach(graph.require('raw'), 'other', READ_WRITE);
    await other.write(4321, new Uint8Array([1, 2, 3]));
    const error = await errorOf(() => user.read(4096, new Uint8Array(512)));
    expect(error).toMatchObject({ errno: 'EIO' });
    expect(error.message).toBe(
      'blkverify: read offset=4096 bytes=512 contents mismatch at offset 4321',
    );
    await user.read(0, new Uint8Array(4096));
    await other.detach();
    await user.detach();
    await graph.closeAll();
  });

  it('fails when one side fails', async () => {
    const { graph, user } = await stage(rules(4));
    await user.write(0, new Uint8Array(2048));
    expect((await errorOf(() => user.write(2048, new Uint8Array(512)))).message).toBe(
      'blkverify: write offset=2048 bytes=512 return value mismatch EIO != none',
    );
    await user.detach();
    await graph.closeAll();
  });
});
