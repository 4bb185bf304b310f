// SPDX-License-Identifier: Apache-2.0
// Drained sections while the graph changes: who reaches a drained node stays outside.
import { describe, expect, it } from 'vitest';

import { ManualClock, SeededRandom } from '../../../src/base/index.js';
import { createGraph, createRegistry, type Driver, type Graph } from '../../../src/block/index.js';
import { ThrottleGroup, UNLIMITED, withLimits } from '../../../src/block/throttle/index.js';
import { throttle } from '../../../src/drivers/filters/throttle/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import { nullDriver } from '../../../src/drivers/protocols/null-co/index.js';
import { errorOf, graphOn, makeFile, MemoryHost, READ_WRITE } from '../../helpers/graph.js';
import { createOn } from '../../helpers/qcow2-create.js';
import { testDriver } from '../../helpers/test-driver.js';

const MIB = 2 ** 20;

async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

/** Whether the work has ended after all that can happen now has happened. */
async function hasEnded(work: unknown): Promise<boolean> {
  let ended = false;
  void Promise.resolve(work).then(() => (ended = true));
  await turn();
  return ended;
}

describe('a drained section', () => {
  it('keeps out users that a graph change leads to its nodes', async () => {
    const host = new MemoryHost();
    await createOn(host, '/top', { driver: 'qcow2', size: MIB } as never);
    await makeFile(host, '/base', MIB);
    const graph = graphOn(host, [qcow2Driver as unknown as Driver<never>]);
    const top = await graph.open({
      driver: 'qcow2',
      'node-name': 'top',
      file: { driver: 'file', filename: '/top' },
    });
    const base = await graph.open({
      driver: 'file',
      'node-name': 'base',
      filename: '/base',
      'read-only': true,
    });
    const user = await graph.attach(top, 'guest', READ_WRITE);
    const section = await graph.drain([base]);
    await user.read(0, new Uint8Array(512));
    await graph.setBacking(top, base);
    const read = user.read(0, new Uint8Array(512));
    expect(await hasEnded(read)).toBe(false);
    section.end();
    await read;
    await user.detach();
    await graph.closeAll();
  });

  it('covers a throttle node that is opened in it, and lets nothing of it wait', async () => {
    const { graph, clock } = throttled();
    const below = await graph.open({ driver: 'null-co', 'node-name': 'below', size: MIB });
    const section = await graph.drain([below]);
    const slow = { driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'g', file: 'below' };
    const user = await graph.attach(await graph.open(slow), 'guest', READ_WRITE);
    const writes = [user.write(0, new Uint8Array(MIB)), user.write(0, new Uint8Array(MIB))];
    expect(await hasEnded(Promise.race(writes))).toBe(false);
    expect(clock.pendingTimers).toBe(0);
    section.end();
    await writes[0];
    expect(await hasEnded(writes[1])).toBe(false);
    const second = await graph.drain([below]);
    await writes[1];
    second.end();
    await user.detach();
    await graph.closeAll();
    expect(clock.pendingTimers).toBe(0);
  });

  it('begun while another waits, ends both waits with the last request', async () => {
    const { graph } = throttled();
    await graph.open({ driver: 'null-co', 'node-name': 'below', size: MIB });
    const slow = { driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'g', file: 'below' };
    const node = await graph.open(slow);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    const leave = await user.enter();
    const sections = [graph.drain([node]), graph.drain([graph.require('below')])];
    expect(await hasEnded(Promise.race(sections))).toBe(false);
    leave();
    for (const section of await Promise.all(sections)) section.end();
    await user.write(0, new Uint8Array(512));
    await user.detach();
    await graph.closeAll();
  });
});

function throttled(): { graph: Graph; clock: ManualClock } {
  const clock = new ManualClock();
  const group = new ThrottleGroup('g', clock);
  group.configure(withLimits(UNLIMITED, { 'bps-total': 1024 }));
  const drivers = [nullDriver, throttle] as unknown as readonly Driver[];
  const entries = drivers.map((driver) => [driver.name, () => Promise.resolve(driver)] as const);
  const graph = createGraph({
    host: new MemoryHost({ clock }),
    registry: createRegistry({ drivers: Object.fromEntries(entries) }),
    clock,
    random: new SeededRandom(1),
    throttleGroup: (name) => (name === 'g' ? group : null),
  });
  return { graph, clock };
}

describe('a backend', () => {
  async function stage() {
    const device = testDriver({ bytes: new Uint8Array(64) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    const node = await graph.open({ driver: 'test', 'node-name': 'below' });
    return { device, graph, node, user: await graph.attach(node, 'guest', READ_WRITE) };
  }

  it('begins what it held back in order, before what comes later', async () => {
    const { device, graph, node, user } = await stage();
    const section = await graph.drain([node]);
    const done = [user.write(1, new Uint8Array(1)), user.write(2, new Uint8Array(1))];
    user.onQuiesce((quiesced) => {
      if (!quiesced) done.push(user.write(3, new Uint8Array(1)));
    });
    section.end();
    done.push(user.write(4, new Uint8Array(1)));
    await Promise.all(done);
    expect(device.calls.map(({ offset }) => offset)).toEqual([1, 2, 3, 4]);
  });

  it('that is quiesced again at once keeps the order of what it holds', async () => {
    const { device, graph, node, user } = await stage();
    const first = await graph.drain([node]);
    const second = await graph.drain([node]);
    const one = user.write(1, new Uint8Array(1));
    first.end();
    const third = graph.drain([node]);
    second.end();
    const two = user.write(2, new Uint8Array(1));
    expect(await hasEnded(Promise.race([one, two]))).toBe(false);
    (await third).end();
    await Promise.all([one, two]);
    expect(device.calls.map(({ offset }) => offset)).toEqual([1, 2]);
  });

  it('tells each listener of each change once, also when one of them drains', async () => {
    const { graph, node, user } = await stage();
    const heard: string[] = [];
    let inner: Promise<void> | null = null;
    user.onQuiesce((quiesced) => {
      heard.push(`a ${quiesced}`);
      if (!quiesced) inner ??= graph.drain([node]).then((section) => section.end());
    });
    user.onQuiesce((quiesced) => heard.push(`b ${quiesced}`));
    (await graph.drain([node])).end();
    await inner;
    // The other never hears of the moment in between.
    expect(heard).toEqual(['a true', 'b true', 'a false', 'a true', 'a false', 'b false']);
  });

  it('detached while drained refuses what it held back, once', async () => {
    const { device, graph, node, user } = await stage();
    const section = await graph.drain([node]);
    const write = errorOf(() => user.write(1, new Uint8Array(1)));
    await user.detach();
    section.end();
    expect(await write).toMatchObject({ kind: 'closed' });
    expect(device.calls).toEqual([]);
  });
});
