// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { Permission } from '../../../src/base/index.js';
import {
  readRequest,
  RequestFlag,
  writeRequest,
  zeroRequest,
  type Backend,
  type Node,
  type Request,
} from '../../../src/block/index.js';
import { errorOf, graphOn, MemoryHost, pattern, READ_WRITE } from '../../helpers/graph.js';
import { testDriver, type TestDriver, type TestDriverOptions } from '../../helpers/test-driver.js';

interface Opened {
  readonly node: Node;
  readonly backend: Backend;
  readonly device: TestDriver;
}

async function opened(options: TestDriverOptions, more: object = {}): Promise<Opened> {
  const device = testDriver(options);
  const graph = graphOn(new MemoryHost(), [device.driver]);
  const node = await graph.open({ driver: 'test', 'node-name': 'n', ...more });
  return { node, device, backend: await graph.attach(node, 'user', READ_WRITE) };
}

/** A gate that opens request by request. */
function turnstile(): { gate: () => Promise<void>; open: () => void } {
  const waiting: (() => void)[] = [];
  return {
    gate: () => new Promise<void>((resolve) => waiting.push(resolve)),
    open: () => waiting.shift()?.(),
  };
}

const eight = (value: number): number[] => Array.from({ length: 8 }, () => value);

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('checks at the gate', () => {
  it('an inline request gives nothing back and leaves nothing in flight', async () => {
    const { node, backend } = await opened({ bytes: pattern(8192) });
    expect(backend.read(0, new Uint8Array(512))).toBeUndefined();
    expect(node.inFlight).toBe(0);
  });

  it('ranges beyond the end are refused inline', async () => {
    const { backend, device } = await opened({ bytes: new Uint8Array(4096) });
    for (const offset of [-1, 4096, 3585, 2 ** 52]) {
      const refusal = await errorOf(() => backend.write(offset, new Uint8Array(512)));
      expect(refusal).toMatchObject({ kind: 'out-of-range' });
    }
    expect(device.calls).toEqual([]);
  });

  it('a write past every edge without the permission is a programmer\'s mistake', async () => {
    const device = testDriver({ bytes: new Uint8Array(4096) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    const node = await graph.open({ driver: 'test', 'node-name': 'n' });
    expect(() => node.write(writeRequest(0, new Uint8Array(512)))).toThrow(/assertion failed/);
    const backend = await graph.attach(node, 'stream', {
      taken: Permission.writeUnchanged,
      shared: Permission.all,
    });
    expect(() => node.write(writeRequest(0, new Uint8Array(512)))).toThrow(/assertion failed/);
    await backend.write(0, new Uint8Array(512), RequestFlag.unchanged);
    expect(device.calls.length).toBe(1);
  });

  it('a failing driver leaves nothing in flight, inline or later', async () => {
    let later = false;
    const gate = (): Promise<void> => {
      if (later) return Promise.reject(new Error('later'));
      throw new Error('inline');
    };
    const { node, backend } = await opened({ bytes: new Uint8Array(4096), gate });
    expect((await errorOf(() => backend.read(0, new Uint8Array(16)))).message).toBe('inline');
    later = true;
    expect((await errorOf(() => backend.read(0, new Uint8Array(16)))).message).toBe('later');
    expect(node.inFlight).toBe(0);
    await backend.detach();
  });

  it('requests on a closed node are refused as closed', async () => {
    const device = testDriver({ bytes: new Uint8Array(4096) });
    const graph = graphOn(new MemoryHost(), [device.driver]);
    const node = await graph.open({ driver: 'test', 'node-name': 'n' });
    await graph.close(node);
    const refusal = await errorOf(() => node.read(readRequest(0, new Uint8Array(16))));
    expect(refusal).toMatchObject({ kind: 'closed' });
  });
});

describe('alignment and splitting', () => {
  it('any mix of unaligned, split and zero requests reads like a plain array', async () => {
    const size = 16_384;
    const operation = fc.record({
      kind: fc.constantFrom('read', 'write', 'zero', 'discard'),
      offset: fc.nat(size),
      length: fc.nat(5000),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(operation, { maxLength: 20 }),
        fc.constantFrom(1, 512, 4096),
        fc.constantFrom(0, 4096, 8192),
        fc.constantFrom('native' as const, 'emulate' as const),
        async (operations, requestAlignment, maxTransfer, writeZeroes) => {
          const bytes = pattern(size);
          const model = bytes.slice();
          const limits = { requestAlignment, maxTransfer, optimalZeroes: 4096 };
          const { backend, device } = await opened({ bytes, limits, writeZeroes });
          for (const [index, { kind, offset, length: wanted }] of operations.entries()) {
            const length = Math.min(wanted, size - offset);
            if (kind === 'read') {
              const buffer = new Uint8Array(length);
              await backend.read(offset, buffer);
              expect(buffer).toEqual(model.subarray(offset, offset + length));
            } else if (kind === 'write') {
              const data = pattern(length, index);
              await backend.write(offset, data);
              model.set(data, offset);
            } else if (kind === 'zero') {
              await backend.writeZeroes(offset, length);
              model.fill(0, offset, offset + length);
            } else {
              await backend.discard(offset, length);
            }
          }
          expect(bytes).toEqual(model);
          for (const call of device.calls) {
            expect(call.offset % requestAlignment).toBe(0);
            expect(call.length % requestAlignment).toBe(0);
            if (maxTransfer > 0 && (call.kind === 'read' || call.kind === 'write')) {
              expect(call.length).toBeLessThanOrEqual(maxTransfer);
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('two writes into one block keep each other, whatever the order of answers', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), async (scheduler) => {
        const bytes = new Uint8Array(4096);
        const gate = (): Promise<void> => scheduler.schedule(Promise.resolve());
        const { backend } = await opened({ bytes, limits: { requestAlignment: 512 }, gate });
        const writes = [10, 20, 30, 500].map((offset, index) =>
          backend.write(offset, new Uint8Array(8).fill(index + 1)),
        );
        await scheduler.waitFor(Promise.all(writes));
        expect([...bytes.subarray(10, 18)]).toEqual(eight(1));
        expect([...bytes.subarray(20, 28)]).toEqual(eight(2));
        expect([...bytes.subarray(30, 38)]).toEqual(eight(3));
        expect([...bytes.subarray(500, 508)]).toEqual(eight(4));
      }),
      { numRuns: 50 },
    );
  });

  it('zeroes that may not be written out are refused without the capability', async () => {
    const { backend, device } = await opened({
      bytes: pattern(4096),
      writeZeroes: 'emulate',
    });
    const refusal = await errorOf(() => backend.writeZeroes(0, 512, RequestFlag.noFallback));
    expect(refusal).toMatchObject({ kind: 'unsupported' });
    expect(device.calls).toEqual([]);
  });
});

describe('serialising requests', () => {
  it('wait for earlier overlapping requests and hold up later ones', async () => {
    const { gate, open } = turnstile();
    const { backend, device } = await opened({ bytes: new Uint8Array(8192), gate });
    const order: string[] = [];
    const log = async (name: string, done: unknown): Promise<void> => {
      await done;
      order.push(name);
    };
    const first = log('first', backend.write(0, new Uint8Array(1024)));
    const serial = log('serial', backend.write(512, new Uint8Array(1024), RequestFlag.serialising));
    const later = log('later', backend.read(1024, new Uint8Array(512)));
    const apart = log('apart', backend.read(4096, new Uint8Array(512)));
    expect(device.calls.map((call) => call.offset)).toEqual([0, 4096]);
    open();
    await first;
    await turn();
    expect(device.calls.map((call) => call.offset)).toEqual([0, 4096, 512]);
    open();
    await apart;
    open();
    await serial;
    await turn();
    open();
    await later;
    expect(order).toEqual(['first', 'apart', 'serial', 'later']);
  });

  it('noWait fails as busy instead of waiting', async () => {
    const { gate, open } = turnstile();
    const { backend } = await opened({ bytes: new Uint8Array(8192), gate });
    const serial = backend.write(0, new Uint8Array(512), RequestFlag.serialising);
    const refusal = await errorOf(() => backend.write(0, new Uint8Array(512), RequestFlag.noWait));
    expect(refusal).toMatchObject({ kind: 'busy' });
    open();
    await serial;
  });
});

describe('durability and observers', () => {
  it('a durable write and write-through flush after the write', async () => {
    const { backend, device } = await opened({ bytes: new Uint8Array(4096) });
    await backend.write(0, new Uint8Array(512));
    expect(device.flushes).toBe(0);
    await backend.write(0, new Uint8Array(512), RequestFlag.fua);
    expect(device.flushes).toBe(1);
    const second = testDriver({ bytes: new Uint8Array(4096) });
    const graph = graphOn(new MemoryHost(), [second.driver]);
    const node = await graph.open({ driver: 'test', 'node-name': 'n' }, { writeThrough: true });
    await (await graph.attach(node, 'user', READ_WRITE)).write(0, new Uint8Array(512));
    expect(second.flushes).toBe(1);
  });

  it('beforeWrite holds a write up and may fail it, afterWrite is always called', async () => {
    const { node, backend, device } = await opened({ bytes: new Uint8Array(4096) });
    const seen: string[] = [];
    const { gate, open } = turnstile();
    const remove = node.addObserver({
      beforeWrite: gate,
      afterWrite: (offset, length) => seen.push(`${offset}+${length}`),
    });
    const write = backend.write(512, new Uint8Array(512));
    expect(device.calls).toEqual([]);
    expect(node.inFlight).toBe(1);
    open();
    await write;
    expect(seen).toEqual(['512+512']);
    remove();
    node.addObserver({
      beforeWrite() {
        throw new Error('no');
      },
    });
    expect((await errorOf(() => backend.writeZeroes(0, 512))).message).toBe('no');
    expect(device.calls.length).toBe(1);
    expect(node.inFlight).toBe(0);
  });

  it('discards reach the driver only when asked for', async () => {
    const plain = await opened({ bytes: pattern(4096) });
    await plain.backend.discard(0, 4096);
    expect(plain.device.calls).toEqual([]);
    const unmap = await opened({ bytes: pattern(4096) }, { discard: 'unmap' });
    await unmap.backend.discard(0, 4096);
    expect(unmap.device.calls.map(({ kind }) => kind)).toEqual(['discard']);
  });

  it('detect-zeroes turns writes of zeroes into zero requests', async () => {
    const { backend, device } = await opened({ bytes: pattern(4096) }, { 'detect-zeroes': 'on' });
    await backend.write(0, new Uint8Array(512));
    await backend.write(512, new Uint8Array(512).fill(1));
    expect(device.calls.map(({ kind }: Request) => kind)).toEqual(['write-zeroes', 'write']);
  });

  it('batches count as in flight and are seen by observers when they wrote', async () => {
    const { node } = await opened({ bytes: pattern(4096) });
    const seen: number[] = [];
    node.addObserver({ afterWrite: (offset) => seen.push(offset) });
    const end = node.enterBatch(1024, 512, true);
    expect(node.inFlight).toBe(1);
    end();
    expect(node.inFlight).toBe(0);
    expect(seen).toEqual([1024]);
    expect(end).toThrow(/twice/);
    node.enterBatch(0, 512, false)();
    expect(seen).toEqual([1024]);
    expect(zeroRequest(0, 1).kind).toBe('write-zeroes');
  });
});
