// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { BlockError } from '../../../src/base/index.js';
import { transaction } from '../../../src/block/index.js';
import { errorOf, graphOn, makeFile, MemoryHost, READ_WRITE } from '../../helpers/graph.js';
import { testDriver } from '../../helpers/test-driver.js';

describe('drained sections', () => {
  it('stop users above, wait for what runs, lose no request and never hang', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.array(fc.constantFrom('write', 'drain'), { minLength: 2, maxLength: 12 }),
        async (scheduler, steps) => {
          const bytes = new Uint8Array(64);
          let drained = 0;
          const device = testDriver({
            bytes,
            gate: () => scheduler.schedule(Promise.resolve(), 'device'),
          });
          const graph = graphOn(new MemoryHost(), [device.driver]);
          const below = await graph.open({ driver: 'test', 'node-name': 'below' });
          const top = await graph.open({ driver: 'raw', 'node-name': 'top', file: 'below' });
          const users = [
            await graph.attach(top, 'a', READ_WRITE),
            await graph.attach(top, 'b', READ_WRITE),
          ];
          const work = steps.map(async (step, index) => {
            await scheduler.schedule(Promise.resolve(), step);
            if (step === 'write') {
              await users[index % 2]?.write(index, new Uint8Array([index + 1]));
              return;
            }
            const section = await graph.drain([index % 2 === 0 ? below : top]);
            drained += 1;
            expect(index % 2 === 0 ? below.inFlight : top.inFlight).toBe(0);
            expect(top.inFlight).toBe(0);
            const calls = device.calls.length;
            await scheduler.schedule(Promise.resolve(), 'inside');
            expect(device.calls.length).toBe(calls);
            section.end();
          });
          await scheduler.waitFor(Promise.all(work));
          for (const [index, step] of steps.entries()) {
            expect(bytes[index]).toBe(step === 'write' ? index + 1 : 0);
          }
          expect(drained).toBe(steps.filter((step) => step === 'drain').length);
          for (const user of users) await user.detach();
          await graph.closeAll();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('a user that comes during a section waits for its end', async () => {
    const device = testDriver({ bytes: new Uint8Array(64) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    await graph.open({ driver: 'test', 'node-name': 'below' });
    const top = await graph.open({ driver: 'raw', 'node-name': 'top', file: 'below' });
    const section = await graph.drain([graph.require('below')]);
    const late = await graph.attach(top, 'late', READ_WRITE);
    const states: boolean[] = [];
    late.onQuiesce((quiesced) => states.push(quiesced));
    const write = late.write(0, new Uint8Array([9]));
    await Promise.resolve();
    expect(device.calls).toEqual([]);
    section.end();
    await write;
    expect(device.calls.length).toBe(1);
    expect(states).toEqual([true, false]);
  });

  it('a user is detached once its requests have ended, however often that is asked', async () => {
    const graph = graphOn(new MemoryHost(), [testDriver({ bytes: new Uint8Array(64) }).driver]);
    const node = await graph.open({ driver: 'test', 'node-name': 'below' });
    const user = await graph.attach(node, 'job', READ_WRITE);
    const leave = await user.enter();
    const over: string[] = [];
    const first = user.detach().then(() => over.push('first'));
    const second = user.detach().then(() => over.push('second'));
    await new Promise((resolve) => setImmediate(resolve));
    expect(over).toEqual([]);
    leave();
    await Promise.all([first, second]);
    expect(node.parents.size).toBe(0);
    const refusal = await errorOf(() => user.read(0, new Uint8Array(1)));
    expect(refusal?.message).toBe("'job' is not attached to a node any more");
  });

  it('work registered with enter is waited for', async () => {
    const device = testDriver({ bytes: new Uint8Array(64) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    const node = await graph.open({ driver: 'test', 'node-name': 'below' });
    const user = await graph.attach(node, 'job', READ_WRITE);
    const leave = await user.enter();
    let ended = false;
    const draining = graph.drain([node]).then((section) => {
      ended = true;
      section.end();
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(false);
    leave();
    await draining;
    expect(ended).toBe(true);
  });
});

describe('transactions', () => {
  it('undo in reverse order when a later step fails, and clean up', async () => {
    const log: string[] = [];
    const step = (
      name: string,
    ): Parameters<Parameters<Parameters<typeof transaction>[0]>[0]['add']>[0] => ({
      commit: () => log.push(`commit ${name}`),
      abort: () => log.push(`abort ${name}`),
      clean: async () => void log.push(`clean ${name}`),
    });
    const failing = transaction(async (tx) => {
      tx.add(step('one'));
      tx.add(step('two'));
      await Promise.resolve();
      throw new Error('third failed');
    });
    expect((await errorOf(() => failing)).message).toBe('third failed');
    expect(log).toEqual(['abort two', 'abort one', 'clean one', 'clean two']);
    log.length = 0;
    expect(await transaction((tx) => (tx.add(step('one')), tx.add(step('two')), 5))).toBe(5);
    expect(log).toEqual(['commit one', 'commit two', 'clean one', 'clean two']);
  });
});

describe('the guess of raw', () => {
  it('is not made of a format that has no driver here: it is refused by its name', async () => {
    const host = new MemoryHost();
    const luks = Buffer.alloc(4096);
    luks.write('LUKS\u00ba\u00be\0\u0001', 'latin1');
    host.putFile('/disk', luks);
    const graph = graphOn(host, []);
    const guessed = await errorOf(() => graph.openImage('/disk', null, true));
    expect(guessed.message).toBe(
      "Could not open '/disk': Image format 'luks' is not supported",
    );
    const explicit = await graph.openImage('/disk', 'raw', true);
    expect(explicit.probedRaw).toBe(false);
  });

  it('may not be turned into a format that has no driver here', async () => {
    const host = new MemoryHost();
    await makeFile(host, '/disk', 4096);
    const graph = graphOn(host, []);
    const node = await graph.openImage('/disk', null, false);
    const backend = await graph.attach(node, 'guest', READ_WRITE);
    const refused = await errorOf(() => backend.write(0, Buffer.from('KDMV')));
    expect((refused as BlockError).kind).toBe('permission');
    expect(refused.message).toContain("'vmdk'");
  });

  const magic = new Uint8Array([0x51, 0x46, 0x49, 0xfb]);
  const recognising = {
    ...testDriver({ bytes: new Uint8Array(512) }).driver,
    kind: 'format' as const,
    probe: (head: Uint8Array) => (magic.every((byte, index) => head[index] === byte) ? 100 : 0),
  };

  it('keeps the first sector from becoming another format, in any number of writes', async () => {
    const host = new MemoryHost();
    await makeFile(host, '/disk', 4096);
    const graph = graphOn(host, [recognising]);
    const node = await graph.openImage('/disk', null, false);
    expect(node.driver.name).toBe('raw');
    expect(node.probedRaw).toBe(true);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    expect(await errorOf(() => user.write(0, magic))).toMatchObject({ kind: 'permission' });
    await user.write(0, magic.subarray(0, 2));
    expect(await errorOf(() => user.write(2, magic.subarray(2)))).toMatchObject({ errno: 'EPERM' });
    await user.write(1, new Uint8Array(512).fill(9));
    await user.write(1024, magic);
    await user.detach();
    const explicit = await graph.openImage('/disk', 'raw', false);
    const other = await graph.attach(explicit, 'guest', READ_WRITE);
    await other.write(0, magic);
    await other.detach();
    await graph.closeAll();
    expect((await graphOn(host, [recognising]).openImage('/disk', null, true)).driver.name).toBe(
      'test',
    );
  });
});
