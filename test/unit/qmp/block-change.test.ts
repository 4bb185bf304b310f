// SPDX-License-Identifier: Apache-2.0
// Commands on nodes in use that a real daemon cannot be asked about: old names, events of guests.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { createEngine } from '../../../src/engine/index.js';
import type { Engine, EngineEvent } from '../../../src/engine/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import { runCommand } from '../../../src/qmp/dispatch.js';
import type { JsonObject } from '../../../src/base/index.js';
import { errorOf, makeFile, pattern, READ_WRITE } from '../../helpers/graph.js';

describe('commands on nodes in use', () => {
  let engine: Engine;
  let events: EngineEvent[];

  beforeEach(async () => {
    const host = new MemoryHost();
    await makeFile(host, '/disk', 2 ** 20);
    engine = await createEngine({ host, lanes: 0 });
    events = [];
    engine.events.subscribe((event) => events.push(event));
    await run('blockdev-add', { driver: 'file', 'node-name': 'f', filename: '/disk' });
    await run('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'f' });
  });

  afterEach(() => engine.close());

  function run(command: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    const plain = Object.assign(Object.create(null) as JsonObject, args);
    return runCommand(engine, { command, args: plain, outOfBand: false });
  }

  it('x-blockdev-reopen takes the options of one node as its arguments', async () => {
    await run('x-blockdev-reopen', { driver: 'raw', 'node-name': 'r', file: 'f', offset: 512 });
    expect(engine.graph.require('r').length).toBe(2 ** 20 - 512);
    const refused = await errorOf(() =>
      run('x-blockdev-reopen', { options: [{ driver: 'raw', 'node-name': 'r', file: 'f' }] }),
    );
    expect(refused.message).toBe("Parameter 'driver' is missing");
  });

  it('a snapshot names its backing file as that was opened, relative names included', async () => {
    const { host } = engine.graph;
    await makeFile(host, 'images/base.raw', 2 ** 20);
    const file = { driver: 'file', filename: 'images/base.raw' };
    await run('blockdev-add', { driver: 'raw', 'node-name': 'b', file });
    await run('blockdev-add', { driver: 'raw', 'node-name': 'user', file: 'b' });
    for (const [node, name] of [['b', 's1'], ['s1', 's2']]) {
      await run('blockdev-snapshot-sync', {
        'node-name': node,
        'snapshot-file': `${name}.qcow2`,
        'snapshot-node-name': name,
      });
    }
    const link = (name: string): unknown => engine.graph.require(name).backingLink();
    expect(link('s1')).toEqual({ file: 'images/base.raw', format: 'raw' });
    expect(link('s2')).toEqual({ file: 's1.qcow2', format: 'qcow2' });
  });

  it('an empty list of nodes is no change', async () => {
    await run('blockdev-reopen', { options: [] });
    expect(engine.graph.require('r').length).toBe(2 ** 20);
  });

  it('a threshold fires once, when a write goes past it, and can be armed again', async () => {
    const guest = await engine.graph.attach(engine.graph.require('r'), 'guest', READ_WRITE);
    await run('block-set-write-threshold', { 'node-name': 'f', 'write-threshold': 4096 });
    await guest.write(0, pattern(4096));
    await guest.discard(8192, 4096);
    expect(events).toEqual([]);
    await guest.write(4096, pattern(1024));
    await guest.write(8192, pattern(1024));
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({
      name: 'BLOCK_WRITE_THRESHOLD',
      data: { 'node-name': 'f', 'amount-exceeded': 1024, 'write-threshold': 4096 },
    });
    await run('block-set-write-threshold', { 'node-name': 'f', 'write-threshold': 8192 });
    await guest.writeZeroes(12_288, 512);
    expect(events).toHaveLength(2);
    await guest.detach();
  });

  it('the furthest write of a node is counted, through a reopen', async () => {
    const guest = await engine.graph.attach(engine.graph.require('r'), 'guest', READ_WRITE);
    await guest.write(65_536, pattern(4096));
    await run('blockdev-reopen', {
      options: [
        { driver: 'file', 'node-name': 'f', filename: '/disk', cache: { 'no-flush': true } },
      ],
    });
    await guest.write(0, pattern(4096));
    const stats = (await run('query-blockstats', { 'query-nodes': true })) as {
      'node-name': string;
      stats: { wr_highest_offset: number };
    }[];
    const ends = stats.map((each) => [each['node-name'], each.stats.wr_highest_offset]);
    expect(Object.fromEntries(ends)).toEqual({ f: 69_632, r: 69_632 });
    await guest.detach();
  });

  it('a guest goes on where it was while its nodes are reopened', async () => {
    const guest = await engine.graph.attach(engine.graph.require('r'), 'guest', READ_WRITE);
    const writes = [];
    for (let index = 0; index < 16; index += 1) {
      writes.push(Promise.resolve(guest.write(index * 4096, pattern(4096, index + 1))));
      if (index % 4 === 0) {
        const cache = { 'no-flush': index % 8 === 0 };
        const file = { driver: 'file', 'node-name': 'f', filename: '/disk', cache };
        writes.push(run('blockdev-reopen', { options: [file] }));
      }
    }
    await Promise.all(writes);
    for (let index = 0; index < 16; index += 1) {
      const there = new Uint8Array(4096);
      await guest.read(index * 4096, there);
      expect(there).toEqual(pattern(4096, index + 1));
    }
    const readOnly = { driver: 'raw', 'node-name': 'r', file: 'f', 'read-only': true };
    const refused = await errorOf(() => run('blockdev-reopen', { options: [readOnly] }));
    expect(refused.message).toBe("Read-only block node 'r' cannot support read-write users");
    await guest.detach();
  });
});
