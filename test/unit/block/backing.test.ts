// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import type { Driver, Graph } from '../../../src/block/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import { errorOf, graphOn, makeFile, MemoryHost } from '../../helpers/graph.js';

interface BackingName {
  readonly file: string;
  readonly format: string | null;
}

/** A graph with images at the given paths, each with the backing link that is asked for. */
async function images(links: Readonly<Record<string, BackingName | null>>): Promise<Graph> {
  const host = new MemoryHost();
  const graph = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
  for (const [path, link] of Object.entries(links)) {
    await makeFile(host, path, 0);
    const file = await graph.open({ driver: 'file', 'node-name': 'new', filename: path });
    const user = await graph.attach(file, 'create', { taken: 11, shared: 15 });
    const options = { file: 'new', size: 65_536 };
    await qcow2Driver.create?.({ host, node: () => Promise.resolve(file) }, options);
    await user.detach();
    await graph.close(file);
    if (link === null) continue;
    const node = await graph.openImage(path, 'qcow2', false, { noBacking: true });
    await node.changeBacking(link);
    await graph.close(node);
  }
  return graph;
}

async function refusalOf(graph: Graph, path: string): Promise<string> {
  const refusal = await errorOf(() => graph.openImage(path, 'qcow2', true));
  expect([...graph.nodes]).toEqual([]);
  return refusal.message;
}

describe('backing files', () => {
  it('are found beside the overlay, and may be left out', async () => {
    const graph = await images({
      '/dir/base': null,
      '/dir/top': { file: 'base', format: 'qcow2' },
    });
    const top = await graph.openImage('/dir/top', 'qcow2', false);
    expect(top.backing?.filename).toBe('/dir/base');
    expect(top.backing?.readOnly).toBe(true);
    await graph.close(top);
    const alone = await graph.openImage('/dir/top', 'qcow2', true, { noBacking: true });
    expect(alone.backing).toBe(null);
    await graph.closeAll();
  });

  it('that are missing or of an unknown protocol are refused in one line', async () => {
    const graph = await images({
      '/missing': { file: 'nothere', format: 'qcow2' },
      '/odd': { file: 'foo:bar', format: 'qcow2' },
    });
    expect(await refusalOf(graph, '/missing')).toBe(
      "Could not open '/missing': Could not open backing file: Could not open '/nothere': " +
        'No such file or directory',
    );
    expect(await refusalOf(graph, '/odd')).toBe(
      "Could not open '/odd': Could not open backing file: Unknown protocol 'foo'",
    );
  });

  it('that lead back to a file of the chain are refused, however they are spelled', async () => {
    const json = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"/self"}}';
    const graph = await images({
      '/loop': { file: 'loop', format: 'qcow2' },
      '/a': { file: 'b', format: 'qcow2' },
      '/b': { file: '/a', format: 'qcow2' },
      '/self': { file: json, format: null },
    });
    expect(await refusalOf(graph, '/loop')).toBe("Backing file '/loop' creates an infinite loop.");
    expect(await refusalOf(graph, '/a')).toBe("Backing file '/a' creates an infinite loop.");
    expect(await refusalOf(graph, '/self')).toBe("Backing file '/self' creates an infinite loop.");
  });

  it('named by options nested without end are refused', async () => {
    const graph = graphOn(new MemoryHost());
    const dotted = `json:{"${'a.'.repeat(50_000)}a":1}`;
    const nested = `json:${'{"a":'.repeat(50)}1${'}'.repeat(50)}`;
    for (const name of [dotted, nested]) {
      const { message } = await errorOf(() => graph.openImage(name, null, true));
      expect(message.endsWith('JSON options of an image are nested too deeply')).toBe(true);
    }
  });

  it('without a format are probed, but may not point further then', async () => {
    const graph = await images({
      '/base': null,
      '/middle': { file: 'base', format: 'qcow2' },
      '/good': { file: 'base', format: null },
      '/bad': { file: 'middle', format: null },
    });
    const good = await graph.openImage('/good', null, true);
    expect(good.driver.name).toBe('qcow2');
    expect(good.backing?.driver.name).toBe('qcow2');
    await graph.close(good);
    expect(await refusalOf(graph, '/bad')).toMatch(/the overlay must name its backing format$/);
  });

  it('of a chain that is too long are refused', async () => {
    const links = Object.fromEntries(
      Array.from({ length: 203 }, (_, index) => [
        `/${index}`,
        index === 0 ? null : { file: `${index - 1}`, format: 'qcow2' },
      ]),
    );
    const graph = await images(links);
    expect(await refusalOf(graph, '/202')).toBe('Backing chain is longer than 200 files');
    const whole = await graph.openImage('/150', 'qcow2', true);
    await graph.close(whole);
    expect([...graph.nodes]).toEqual([]);
  });
});
