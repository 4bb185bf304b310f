// SPDX-License-Identifier: Apache-2.0
// Nodes on threads: what moves with what, what is refused, and who copies.

import { describe, expect, it } from 'vitest';

import { createEngine } from '../../../src/engine/index.js';
import type { Engine } from '../../../src/engine/index.js';
import { errorOf, MemoryHost, READ_WRITE } from '../../helpers/graph.js';

async function stage(): Promise<Engine> {
  const engine = await createEngine({ host: new MemoryHost(), lanes: 0 });
  await engine.objects.add({ 'qom-type': 'iothread', id: 'i' });
  const size = 65_536;
  for (const name of ['n', 'm']) {
    await engine.addNode({ driver: 'null-co', 'node-name': name, size });
  }
  await engine.addNode({ driver: 'raw', 'node-name': 'r', file: 'n' });
  return engine;
}

function threadOf(engine: Engine, name: string): string | null {
  const node = engine.graph.find(name);
  return node === null ? null : (engine.objects.placement.of(node)?.id ?? null);
}

describe('a node on a thread', () => {
  it('takes all that is connected to it along, and nothing else', async () => {
    await using engine = await stage();
    await engine.placeNode('n', 'i', false);
    expect(['n', 'r', 'm'].map((name) => threadOf(engine, name))).toEqual(['i', 'i', null]);
    await engine.placeNode('r', null, false);
    expect(['n', 'r', 'm'].map((name) => threadOf(engine, name))).toEqual([null, null, null]);
  });

  it('keeps its thread from being deleted as long as it is there', async () => {
    await using engine = await stage();
    await engine.placeNode('m', 'i', false);
    expect((await errorOf(() => engine.objects.remove('i'))).message).toBe(
      "object 'i' is in use, can not be deleted",
    );
    await engine.deleteNode('m');
    await engine.objects.remove('i');
    expect((await errorOf(() => engine.placeNode('n', 'i', false))).message).toBe(
      'Cannot find iothread i',
    );
  });

  it('stays where it is while a guest is attached, unless forced', async () => {
    await using engine = await stage();
    const node = engine.graph.find('m');
    if (node === null) throw new Error('m is there');
    const guest = await engine.graph.attach(node, 'guest', READ_WRITE);
    const refused = await errorOf(() => engine.placeNode('m', 'i', false));
    expect(refused.message).toContain('could be in use (use force=true');
    expect(threadOf(engine, 'm')).toBeNull();
    await engine.placeNode('m', 'i', true);
    expect(threadOf(engine, 'm')).toBe('i');
    await guest.detach();
  });

  it('has its copying done by lanes of its own', async () => {
    await using engine = await stage();
    const [n, m] = ['n', 'm'].map((name) => engine.graph.find(name));
    if (n === undefined || n === null || m === undefined || m === null) throw new Error('no node');
    const { host } = engine.graph;
    expect(engine.objects.lanesOf(n, host)).toBeNull();
    await engine.placeNode('n', 'i', false);
    const lanes = engine.objects.lanesOf(n, host);
    expect(lanes).not.toBeNull();
    expect(engine.objects.lanesOf(n, host)).toBe(lanes);
    expect(engine.objects.lanesOf(m, host)).toBeNull();
  });
});
