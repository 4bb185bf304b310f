// SPDX-License-Identifier: Apache-2.0
// Throttle groups as objects of an engine, on a clock that never moves by itself.
import { describe, expect, it } from 'vitest';

import { ManualClock } from '../../../src/base/index.js';
import type { Backend } from '../../../src/block/index.js';
import { createEngine } from '../../../src/engine/index.js';
import type { Engine } from '../../../src/engine/index.js';
import { errorOf, MemoryHost, READ_WRITE } from '../../helpers/graph.js';

async function stage(): Promise<{ engine: Engine; user: Backend; waiting: Promise<void> }> {
  const engine = await createEngine({
    host: new MemoryHost(),
    clock: new ManualClock(),
    lanes: 0,
  });
  await engine.objects.add({ 'qom-type': 'throttle-group', id: 'g', limits: { 'bps-total': 1 } });
  const node = await engine.addNode({
    driver: 'throttle',
    'node-name': 't',
    'throttle-group': 'g',
    file: { driver: 'null-co' },
  });
  const user = await engine.graph.attach(node, 'guest', READ_WRITE);
  await user.write(0, new Uint8Array(4096));
  const waiting = user.write(0, new Uint8Array(4096));
  expect(waiting).toBeInstanceOf(Promise);
  return { engine, user, waiting: waiting as Promise<void> };
}

describe('throttle group objects', () => {
  it('qom-set of the limits frees those who wait under the old ones', async () => {
    const { engine, user, waiting } = await stage();
    engine.objects.set('/objects/g', 'limits', { 'bps-total': 0 });
    await waiting;
    await user.detach();
    await engine.close();
  });

  it('a refused change leaves limits and waiting requests as they are', async () => {
    const { engine, user, waiting } = await stage();
    let passed = false;
    void waiting.then(() => {
      passed = true;
    });
    const change = { 'bps-total': 0, 'iops-size': 4096 };
    const error = await errorOf(() => engine.objects.set('g', 'limits', change));
    expect(error.message).toBe('iops size requires an iops value to be set');
    expect(engine.objects.get('g', 'limits')).toMatchObject({ 'bps-total': 1, 'iops-size': 0 });
    await Promise.resolve();
    expect(passed).toBe(false);
    engine.objects.letEverythingThrough();
    await user.detach();
    await engine.close();
  });

  it('cannot be removed before the last node that uses it is gone', async () => {
    const { engine, user, waiting } = await stage();
    expect((await errorOf(() => engine.objects.remove('g'))).message).toContain('is in use');
    engine.objects.letEverythingThrough();
    await waiting;
    await user.detach();
    await engine.deleteNode('t');
    await engine.objects.remove('g');
    expect((await errorOf(() => engine.objects.remove('g'))).message).toContain('not found');
    await engine.close();
  });
});
