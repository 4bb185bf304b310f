// SPDX-License-Identifier: Apache-2.0
// Keys of encrypted images over a life of reopens: which volume they are of, how long they stay.
import { describe, expect, it } from 'vitest';

import { createGraph, createRegistry } from '../../../src/block/index.js';
import type { Graph, Node, NodeOptions } from '../../../src/block/index.js';
import { DRIVER_LOADERS } from '../../../src/engine/catalog.js';
import { MemoryHost } from '../../../src/host/index.js';
import { inQcow2, makeLuks } from '../../helpers/luks-images.js';
import { LUKS_PASSWORD } from '../../helpers/luks.js';
import { luks2Head } from '../../helpers/luks2-image.js';

const PAYLOAD = 65_536;
const registry = createRegistry({ drivers: DRIVER_LOADERS });

const volumes = new Map<string, Promise<Uint8Array>>();

/** The same again for the same number: without the addon one takes long. */
function volume(kind: string, number: number): Promise<Uint8Array> {
  const name = `${kind} ${number}`;
  const made = volumes.get(name) ?? makeVolume(kind, number);
  volumes.set(name, made);
  return made;
}

async function makeVolume(kind: string, number: number): Promise<Uint8Array> {
  if (kind === 'luks2') {
    const head = await luks2Head({ sectorBytes: 4096, vectorOffset: 0, volume: number });
    return Buffer.concat([head, new Uint8Array(PAYLOAD)]);
  }
  const payload = kind === 'luks' ? PAYLOAD : 0;
  const { bytes } = await makeLuks([LUKS_PASSWORD], { payload });
  return kind === 'luks' ? bytes : inQcow2(bytes);
}

interface Stage {
  readonly host: MemoryHost;
  readonly graph: Graph;
  /** How often the secret was asked for. */
  readonly asked: () => number;
  /** Options of node `top` with this node as its file. */
  readonly top: (file: string, options?: Readonly<Record<string, unknown>>) => NodeOptions;
}

/** Files `one` and `two` of different volumes, each full of its number; the node is on `one`. */
async function makeStage(kind: string): Promise<Stage> {
  const host = new MemoryHost();
  let count = 0;
  const secret = (): Uint8Array => {
    count += 1;
    return Buffer.from(LUKS_PASSWORD);
  };
  const graph = createGraph({ host, registry, clock: host.clock, random: host.random, secret });
  const key = { 'key-secret': 's' };
  const own =
    kind === 'qcow2' ? { driver: 'qcow2', encrypt: key } : { driver: 'luks', ...key };
  const top: Stage['top'] = (file, options = {}) => ({
    ...own, 'node-name': 'top', file, ...options,
  });
  for (const [index, name] of ['one', 'two'].entries()) {
    host.putFile(name, Uint8Array.from(await volume(kind, index + 1)));
    await graph.open({ driver: 'file', filename: name, 'node-name': name });
    await graph.open(top(name));
    const user = await graph.attach(find(graph, 'top'), 'fill', { taken: 3, shared: 15 });
    await user.write(0, new Uint8Array(PAYLOAD).fill(index + 1));
    await user.detach();
    await graph.close(find(graph, 'top'));
  }
  await graph.open(top('one'));
  count = 0;
  return { host, graph, asked: () => count, top };
}

function find(graph: Graph, name: string): Node {
  const node = graph.find(name);
  if (node === null) throw new Error(`no node ${name}`);
  return node;
}

async function content(graph: Graph): Promise<readonly number[]> {
  const user = await graph.attach(find(graph, 'top'), 'test', { taken: 1, shared: 15 });
  const bytes = new Uint8Array(PAYLOAD);
  await user.read(0, bytes);
  await user.detach();
  return [...new Set(bytes)];
}

/** As lanes get it. */
async function keyOf(graph: Graph): Promise<Uint8Array> {
  const extents = await find(graph, 'top').planExtents(0, 4096);
  const [first] = extents ?? [];
  if (first?.kind !== 'data' || first.cipher === undefined) throw new Error('no cipher');
  return first.cipher.key.key;
}

const isWiped = (key: Uint8Array): boolean => key.every((byte) => byte === 0);

describe('a luks image whose header lies apart', () => {
  it('keeps its key when another payload comes', async () => {
    const { graph, host, asked } = await makeStage('luks');
    await graph.close(find(graph, 'top'));
    const { bytes } = await makeLuks([LUKS_PASSWORD], { payload: PAYLOAD });
    host.putFile('head', bytes.slice(0, -PAYLOAD));
    await graph.open({ driver: 'file', filename: 'head', 'node-name': 'head' });
    const header = { driver: 'luks', 'node-name': 'top', 'key-secret': 's', header: 'head' };
    await graph.open({ ...header, file: 'one' });
    const before = asked();
    for (const [index, file] of ['two', 'one'].entries()) {
      await graph.reopen([{ ...header, file }]);
      const user = await graph.attach(find(graph, 'top'), 'fill', { taken: 3, shared: 15 });
      await user.write(0, new Uint8Array(PAYLOAD).fill(5 + index));
      await user.detach();
      expect(await content(graph)).toEqual([5 + index]);
    }
    await graph.reopen([{ ...header, file: 'two' }]);
    expect(await content(graph)).toEqual([5]);
    expect(asked()).toBe(before);
    await graph.closeAll();
  });
});

describe.each(['luks', 'luks2', 'qcow2'])('a reopened %s image', (kind) => {
  it('is read with the key of the volume that its file is by then', async () => {
    const { graph, top, asked } = await makeStage(kind);
    expect(await content(graph)).toEqual([1]);
    await graph.reopen([top('two')]);
    expect(await content(graph)).toEqual([2]);
    expect(asked()).toBe(1);
    await graph.reopen([top('one')]);
    expect(await content(graph)).toEqual([1]);
    await graph.closeAll();
  });

  it('keeps its key over a filter and while its file stays, and wipes each copy', async () => {
    const { graph, top, asked } = await makeStage(kind);
    const keys = [await keyOf(graph)];
    await graph.open({ driver: 'raw', file: 'one', 'node-name': 'filter' });
    await graph.reopen([top('filter')]);
    keys.push(await keyOf(graph));
    await graph.reopen([top('filter', { 'read-only': true })]);
    await graph.reopen([top('filter')]);
    keys.push(await keyOf(graph));
    expect(await content(graph)).toEqual([1]);
    expect(asked()).toBe(0);
    const last = await keyOf(graph);
    expect(isWiped(last)).toBe(false);
    await graph.close(find(graph, 'top'));
    expect([...keys, last].map(isWiped)).toEqual([true, true, true, true]);
    await graph.closeAll();
  });

  it('stays as it is when the other volume does not open, and leaves no key behind', async () => {
    const { graph, host, top } = await makeStage(kind);
    const { bytes } = await makeLuks(['another password'], { payload: PAYLOAD });
    host.putFile('other', kind === 'qcow2' ? inQcow2(bytes) : bytes);
    await graph.open({ driver: 'file', filename: 'other', 'node-name': 'other' });
    await expect(graph.reopen([top('other')])).rejects.toThrow('cannot unlock any keyslot');
    expect(await content(graph)).toEqual([1]);
    const key = await keyOf(graph);
    await graph.close(find(graph, 'top'));
    expect(isWiped(key)).toBe(true);
    await graph.closeAll();
  });

  it.skipIf(kind === 'qcow2')('stays as it is when its file ends before the payload', async () => {
    const { graph, host, top } = await makeStage(kind);
    const bytes = await volume(kind, 1);
    host.putFile('cut', Uint8Array.from(bytes.subarray(0, bytes.length - PAYLOAD - 4096)));
    await graph.open({ driver: 'file', filename: 'cut', 'node-name': 'cut' });
    await expect(graph.reopen([top('cut')])).rejects.toThrow(/^LUKS2? header: 'cut' ends at/);
    expect(await content(graph)).toEqual([1]);
    await graph.closeAll();
  });
});
