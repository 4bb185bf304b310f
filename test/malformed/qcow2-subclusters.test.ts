// SPDX-License-Identifier: Apache-2.0
// Extended L2 entries that cannot be: what reading and writing them say, and what a check counts,
// which is what the real check counts.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { failureOf, openOn } from '../helpers/qcow2-node.js';

const CLUSTER = 16_384;
const SUBCLUSTER = 512;

interface Row {
  readonly name: string;
  /** Guest cluster whose entry is changed. */
  readonly cluster: number;
  readonly first?: bigint;
  readonly bitmap?: bigint;
  /** Subcluster that is read and written. */
  readonly subcluster: number;
  /** Reading and writing fail; otherwise they work and this is what reading gives. */
  readonly reads: number | 'corrupt-image';
  readonly corruptions: number;
  readonly leaks?: number;
}

// Cluster 0 is data, 1 has one subcluster of data, 2 one of zeroes, 3 is compressed, 4 is nothing.
const ROWS: readonly Row[] = [
  {
    name: 'a subcluster that is allocated and zero',
    cluster: 1,
    bitmap: 0x1_0000_0001n,
    subcluster: 0,
    reads: 'corrupt-image',
    corruptions: 1,
  },
  {
    name: 'another subcluster that is allocated and zero',
    cluster: 1,
    bitmap: 0x8000_0000_8000_0001n,
    subcluster: 0,
    reads: 'corrupt-image',
    corruptions: 1,
  },
  {
    name: 'all subclusters allocated and zero',
    cluster: 0,
    bitmap: 0xffff_ffff_ffff_ffffn,
    subcluster: 31,
    reads: 'corrupt-image',
    corruptions: 1,
  },
  {
    name: 'an allocated subcluster without a host cluster',
    cluster: 4,
    bitmap: 1n,
    subcluster: 0,
    reads: 'corrupt-image',
    corruptions: 1,
  },
  {
    name: 'the last subcluster allocated without a host cluster',
    cluster: 4,
    bitmap: 0x8000_0000n,
    subcluster: 3,
    reads: 'corrupt-image',
    corruptions: 1,
  },
  {
    name: 'the zero bit of standard entries without a host cluster',
    cluster: 4,
    first: 1n,
    subcluster: 0,
    reads: 0,
    corruptions: 0,
  },
  {
    name: 'zero subclusters without a host cluster',
    cluster: 4,
    bitmap: 0x8000_0001_0000_0000n,
    subcluster: 0,
    reads: 0,
    corruptions: 0,
  },
  {
    name: 'a compressed cluster with allocated subclusters',
    cluster: 3,
    bitmap: 1n,
    subcluster: 0,
    reads: 4,
    corruptions: 1,
    leaks: 1,
  },
  {
    name: 'a compressed cluster with zero subclusters',
    cluster: 3,
    bitmap: 0x1_0000_0000n,
    subcluster: 0,
    reads: 4,
    corruptions: 1,
    leaks: 1,
  },
  {
    name: 'reserved bits',
    cluster: 4,
    first: 0x3000_0000_0000_0000n,
    subcluster: 0,
    reads: 'corrupt-image',
    corruptions: 1,
  },
  {
    name: 'a host cluster that is not aligned',
    cluster: 4,
    first: 0x8000_0000_0001_0200n,
    subcluster: 0,
    reads: 'corrupt-image',
    corruptions: 3,
  },
];

const qemuImg = peer('qemu-img');

describe('a malformed extended L2 entry', () => {
  const folder = mkdtempSync(join(tmpdir(), 'subclusters-'));
  let sound: Uint8Array;

  beforeAll(async () => {
    const host = new MemoryHost();
    const options = { size: 2 ** 20, 'cluster-size': CLUSTER, 'extended-l2': true };
    await createOn(host, '/image', options);
    const { node } = await openOn(host, '/image');
    await node.write(writeRequest(0, new Uint8Array(CLUSTER).fill(1)));
    await node.write(writeRequest(CLUSTER, new Uint8Array(SUBCLUSTER).fill(2)));
    await node.writeZeroes(zeroRequest(2 * CLUSTER, SUBCLUSTER, 0));
    const data = new Uint8Array(CLUSTER).fill(4);
    await node.write(writeRequest(3 * CLUSTER, data, RequestFlag.compressed));
    await node.close();
    sound = host.fileContents('/image');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function changed({ cluster, first, bitmap }: Row): Uint8Array {
    const bytes = sound.slice();
    const view = new DataView(bytes.buffer);
    const l1 = Number(view.getBigUint64(40));
    const table = Number(view.getBigUint64(l1) & 0x00ff_ffff_ffff_fe00n);
    const at = table + cluster * 16;
    if (first !== undefined) view.setBigUint64(at, first);
    if (bitmap !== undefined) view.setBigUint64(at + 8, bitmap);
    return bytes;
  }

  it.each(ROWS)('$name: is read, written and told', async (row) => {
    const host = new MemoryHost();
    host.putFile('/image', changed(row));
    const image = await openOn(host, '/image');
    const offset = row.cluster * CLUSTER + row.subcluster * SUBCLUSTER;
    const write = (): unknown => image.node.write(writeRequest(offset, new Uint8Array(100)));
    if (row.reads === 'corrupt-image') {
      const failures = [await failureOf(() => image.read(offset, 100))];
      host.putFile('/image', changed(row));
      const again = await openOn(host, '/image');
      const request = writeRequest(offset, new Uint8Array(100));
      failures.push(await failureOf(() => again.node.write(request)));
      for (const failure of failures) {
        expect(failure).toMatchObject({ kind: 'corrupt-image' });
        expect(failure?.message).toMatch(/^[^\n]*L2 entry 0x[^\n]* is invalid$/);
      }
      return;
    }
    expect(await image.read(offset, 100)).toEqual(new Uint8Array(100).fill(row.reads));
    expect(await failureOf(write)).toBe(null);
    expect(await image.read(offset, 100)).toEqual(new Uint8Array(100));
    await image.node.close();
    const expected = { corruptions: 0, leaks: 0 };
    expect(await checkBytes(host.fileContents('/image'))).toMatchObject(expected);
  });

  it.each(ROWS)('$name: is counted by a check', async (row) => {
    const result = await checkBytes(changed(row));
    const { corruptions, leaks = 0 } = row;
    expect(result, result.messages.join('\n')).toMatchObject({ corruptions, leaks });
  });

  it.skipIf(qemuImg === null)('is told by the real check in the same words', async () => {
    for (const row of ROWS) {
      const bytes = changed(row);
      const path = join(folder, 'image');
      writeFileSync(path, bytes);
      const { stderr, stdout } = spawnSync(qemuImg ?? '', ['check', '-f', 'qcow2', path]);
      const { messages } = await checkBytes(bytes);
      const said = stderr.toString().split('\n').filter((line) => line !== '');
      expect(messages, row.name).toEqual(said);
      const errors = row.corruptions === 0 ? 'No errors' : `${row.corruptions} errors`;
      expect(stdout.toString(), row.name).toContain(errors);
    }
  });
});
