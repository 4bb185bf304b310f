// SPDX-License-Identifier: Apache-2.0
// External data files that images of strangers name or leave out, and L2 entries that cannot be in
// an image with one. What a header names is a path, whatever it looks like, and who only looks at
// headers opens nothing.
import { beforeEach, describe, expect, it } from 'vitest';
import { must } from '../../src/base/index.js';
import { discardRequest, readRequest, writeRequest } from '../../src/block/index.js';
import type { Graph } from '../../src/block/index.js';
import { qcow2Driver } from '../../src/drivers/formats/qcow2/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { graphOn, makeFile } from '../helpers/graph.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { failureOf, openOn } from '../helpers/qcow2-node.js';

const CLUSTER = 4096;
const L2 = 4 * CLUSTER;
const SIZE = 16 * CLUSTER;

/** An image whose first four clusters are data, in `/data`. */
async function made(raw = false): Promise<MemoryHost> {
  const host = new MemoryHost();
  const options = { 'data-file': '/data', 'data-file-raw': raw, 'cluster-size': CLUSTER };
  await createOn(host, '/image', { size: SIZE, ...options });
  const { node } = await openOn(host, '/image');
  await node.write(writeRequest(0, new Uint8Array(4 * CLUSTER).fill(7)));
  await node.close();
  return host;
}

function poke(host: MemoryHost, at: number, bytes: readonly number[]): void {
  const image = host.fileContents('/image').slice();
  image.set(bytes, at);
  host.putFile('/image', image);
}

/** Header extensions begin at 112 without a name of the data file, or with another one. */
function rename(host: MemoryHost, name: string | null): void {
  const image = host.fileContents('/image').slice();
  image.fill(0, 112, 1024);
  if (name !== null) {
    const data = Buffer.from(name);
    image.set(Buffer.from('DATA'), 112);
    new DataView(image.buffer).setUint32(116, data.length);
    image.set(data, 120);
  }
  host.putFile('/image', image);
}

function entry(host: MemoryHost, cluster: number, value: bigint): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  poke(host, L2 + cluster * 8, [...bytes]);
}

describe('the data file that a header names', () => {
  let host: MemoryHost;
  let graph: Graph;
  beforeEach(async () => {
    host = await made();
    graph = graphOn(host, [qcow2Driver as never]);
  });
  const messageOf = async (policy = {}): Promise<string> => {
    const failure = await failureOf(async () => {
      const node = await graph.openImage('/image', 'qcow2', true, policy);
      await graph.close(node);
    });
    return failure?.message ?? '';
  };

  it('is missed where the bit is set and no name is there', async () => {
    rename(host, null);
    expect(await messageOf()).toContain("'data-file' is required for this image");
  });

  it('is a path, whatever it looks like', async () => {
    const names = [
      'json:{"driver":"file","filename":"/data"}',
      'json:{"driver":"null-co"}',
      'file:/data',
      'nbd:unix:/data',
      'null-co://',
      'x'.repeat(500),
    ];
    for (const name of names) {
      rename(host, name);
      expect(await messageOf(), name).toContain(`Could not open '${name}'`);
    }
    rename(host, '');
    expect(await messageOf()).toContain("The 'file' block driver requires a file name");
    const name = 'json:{"driver":"null-co"}';
    await makeFile(host, name, 64);
    rename(host, name);
    expect(await messageOf()).toBe('');
  });

  it('ends at its first zero byte', async () => {
    rename(host, '/data\0elsewhere');
    expect(await messageOf()).toBe('');
  });

  it('may not be the image itself, but read-only', async () => {
    rename(host, '/image');
    const failure = await failureOf(() => graph.openImage('/image', 'qcow2', false));
    expect(failure?.message).toMatch(/resize/);
    expect(await messageOf()).toBe('');
  });

  it('is not opened by who only looks at the header', async () => {
    for (const name of [null, '/gone', 'json:{"driver":"null-co"}']) {
      rename(host, name);
      expect(await messageOf({ inspectOnly: true, noData: true, noBacking: true })).toBe('');
    }
  });

  it('cannot be raw or given where there is none', async () => {
    poke(host, 79, [0]);
    const node = { driver: 'qcow2', file: { driver: 'file', filename: '/image' } };
    const given = { ...node, 'data-file': { driver: 'file', filename: '/data' } };
    const failure = await failureOf(() => graph.open(given));
    expect(failure?.message).toContain('can only be set for images with an external data file');
    poke(host, 95, [2]);
    expect(await messageOf()).toContain('data-file-raw requires a data file');
  });

  it('keeps its raw bit over a read-write open, and no unknown one', async () => {
    poke(host, 95, [0x82]);
    await graph.close(await graph.openImage('/image', 'qcow2', false));
    expect(host.fileContents('/image')[95]).toBe(2);
  });
});

describe('L2 entries of an image with a data file', () => {
  const readAll = async (host: MemoryHost): Promise<unknown> => {
    const { node } = await openOn(host, '/image');
    return failureOf(() => node.read(readRequest(0, new Uint8Array(SIZE))));
  };
  const wrong = [
    { name: 'a compressed cluster', cluster: 1, value: 0x4000_0000_0000_5000n },
    { name: 'a place that is not the own', cluster: 1, value: 0x8000_0000_0000_2000n },
    { name: 'a place between clusters', cluster: 1, value: 0x8000_0000_0000_1200n },
    { name: 'the begin of the file for another cluster', cluster: 8, value: 1n << 63n },
  ];
  for (const { name, cluster, value } of wrong) {
    it(`are refused for ${name}`, async () => {
      const host = await made();
      entry(host, cluster, value);
      expect(await readAll(host)).toMatchObject({ kind: 'corrupt-image' });
    });
  }

  it('may be zeroes at the begin of the file, and nothing without the copied bit', async () => {
    for (const value of [0n, 1n, (1n << 63n) | 1n]) {
      const host = await made();
      entry(host, 0, value);
      const opened = await openOn(host, '/image');
      expect(await opened.read(0, CLUSTER)).toEqual(new Uint8Array(CLUSTER));
    }
  });

  it('are counted by no refcount, and a compressed one is told of', async () => {
    const host = await made();
    const sound = { corruptions: 0, leaks: 0, allocatedClusters: 4 };
    expect(await checkBytes(host.fileContents('/image'))).toMatchObject(sound);
    entry(host, 1, 0x4000_0000_0000_5000n);
    const { corruptions, messages } = await checkBytes(host.fileContents('/image'));
    expect(corruptions).toBe(1);
    expect(messages).toEqual([
      'ERROR compressed cluster 1 with data file, entry=0x4000000000005000',
    ]);
    entry(host, 1, 0x1000n);
    const flagged = await checkBytes(host.fileContents('/image'));
    expect(flagged.messages).toEqual([
      'ERROR OFLAG_COPIED data cluster: l2_entry=1000 refcount=1',
    ]);
  });
});

describe('space in a data file', () => {
  it('that a reservation fills is not written by anybody else before it is linked', async () => {
    const host = await made();
    const opened = await openOn(host, '/image');
    const { node } = opened;
    const offset = 8 * CLUSTER;
    const reservation = must(await node.reserve(offset, CLUSTER), 'a reservation');
    expect(await node.reserve(offset, CLUSTER)).toBe(null);
    const written = node.write(writeRequest(offset, new Uint8Array(512).fill(9)));
    const [piece] = reservation.pieces;
    expect(piece).toMatchObject({ offset, hostOffset: offset, fresh: true });
    await piece?.file.write(new Uint8Array(CLUSTER).fill(5), offset);
    await reservation.link(['written']);
    await written;
    const expected = new Uint8Array(CLUSTER).fill(5).fill(9, 0, 512);
    expect(await opened.read(offset, CLUSTER)).toEqual(expected);
  });

  it('that a guest gives up reads as zeroes in a raw file', async () => {
    const host = await made(true);
    const opened = await openOn(host, '/image');
    const { node } = opened;
    await node.discard(discardRequest(CLUSTER, 2 * CLUSTER));
    await node.flush();
    expect(await opened.read(0, SIZE)).toEqual(host.fileContents('/data'));
    expect(host.fileContents('/data').subarray(CLUSTER, 3 * CLUSTER).every((byte) => byte === 0))
      .toBe(true);
  });
});
