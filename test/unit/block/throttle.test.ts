// SPDX-License-Identifier: Apache-2.0
// Rates of throttle groups, on a clock that the test moves.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { ManualClock } from '../../../src/base/index.js';
import type { Driver } from '../../../src/block/index.js';
import { createGraph, createRegistry } from '../../../src/block/index.js';
import { ThrottleGroup, UNLIMITED, withLimits } from '../../../src/block/throttle/index.js';
import type { LimitName, RateName, ThrottleLimits } from '../../../src/block/throttle/options.js';
import { throttle } from '../../../src/drivers/filters/throttle/index.js';
import { nullDriver } from '../../../src/drivers/protocols/null-co/index.js';
import { errorOf, MemoryHost, READ_WRITE } from '../../helpers/graph.js';

const KIB = 1024;

function groupWith(clock: ManualClock, limits: ThrottleLimits): ThrottleGroup {
  const group = new ThrottleGroup('g', clock);
  group.configure(withLimits(UNLIMITED, limits));
  return group;
}

/** Sends requests one after another for `ms`; gives how many passed. */
async function passedIn(
  clock: ManualClock,
  ms: number,
  send: () => void | Promise<void>,
): Promise<number> {
  let passed = 0;
  let ended = false;
  const worker = (async () => {
    while (!ended) {
      await send();
      if (!ended) passed += 1;
    }
  })();
  const end = clock.now() + ms;
  while (clock.now() < end) {
    for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
    if (clock.pendingTimers > 0) clock.advance(Math.min(1, end - clock.now()));
  }
  for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
  ended = true;
  while (clock.advanceToNext()) await Promise.resolve();
  await worker;
  return passed;
}

interface ModelLimit {
  readonly rate: RateName;
  readonly average: number;
  readonly factor: number;
  readonly burstLength: number;
  readonly bursts: boolean;
}

/**
 * When each request passes, in milliseconds: the moment at which what was let through, less what
 * has leaked since, is within a tenth of a second's worth of each rate, or within its burst.
 */
function modelTimes(
  limits: readonly ModelLimit[],
  requests: readonly { readonly afterMs: number; readonly bytes: number }[],
): number[] {
  const levels = limits.flatMap(({ rate, average, factor, burstLength, bursts }) => {
    const unit = rate.startsWith('bps') ? 'bytes' : 'requests';
    const most = average * factor;
    if (!bursts) return [{ unit, perMs: average / 1000, room: average / 10, level: 0 }];
    const long = { unit, perMs: average / 1000, room: most * burstLength, level: 0 };
    const short = { unit, perMs: most / 1000, room: most / 10, level: 0 };
    return burstLength > 1 ? [long, short] : [long];
  });
  let now = 0;
  let arrival = 0;
  return requests.map(({ afterMs, bytes }) => {
    arrival += afterMs;
    const wait = Math.max(0, ...levels.map((one) => (one.level - one.room) / one.perMs));
    const passes = Math.max(arrival, now + wait);
    for (const one of levels) {
      one.level = Math.max(0, one.level - one.perMs * (passes - now));
      one.level += one.unit === 'bytes' ? bytes : 1;
    }
    now = passes;
    return passes;
  });
}

describe('throttle group', () => {
  it('keeps every rate, whatever the size of the requests', async () => {
    const name = fc.constantFrom<LimitName>('bps-total', 'bps-write', 'iops-total', 'iops-write');
    const request = fc.integer({ min: 512, max: 64 * KIB });
    await fc.assert(
      fc.asyncProperty(name, fc.integer({ min: 1, max: 50 }), request, async (limit, n, bytes) => {
        const clock = new ManualClock();
        const perSecond = limit.startsWith('bps') ? n * 10 * bytes : n * 10;
        const group = groupWith(clock, { [limit]: perSecond });
        const member = group.join();
        const passed = await passedIn(clock, 10_000, () => member.enter('write', bytes));
        // Ten seconds' worth, a tenth of a second's allowance, and the one that overflows.
        expect(passed).toBeGreaterThanOrEqual(n * 100 - 1);
        expect(passed).toBeLessThanOrEqual(n * 101 + 2);
      }),
      { numRuns: 20 },
    );
  });

  it('a limit for reads leaves writes alone', () => {
    const member = groupWith(new ManualClock(), { 'bps-read': 1 }).join();
    for (let count = 0; count < 100; count += 1) {
      expect(member.enter('write', 64 * KIB)).toBeUndefined();
    }
    expect(member.enter('read', 1)).toBeUndefined();
    expect(member.enter('read', 1)).toBeInstanceOf(Promise);
  });

  it('a burst lasts its seconds at its rate, then the plain rate holds', async () => {
    const clock = new ManualClock();
    const limits = { 'iops-total': 10, 'iops-total-max': 100, 'iops-total-max-length': 3 };
    const member = groupWith(clock, limits).join();
    const seconds = [];
    for (let second = 0; second < 8; second += 1) {
      seconds.push(await passedIn(clock, 1000, () => member.enter('read', 512)));
    }
    const [first, second, third] = seconds as [number, number, number];
    for (const burst of [first, second, third]) {
      expect(burst).toBeGreaterThan(85);
      expect(burst).toBeLessThan(115);
    }
    for (const rest of seconds.slice(4)) expect(rest).toBeLessThanOrEqual(12);
  });

  it('a burst without a length lets its amount pass at once', () => {
    const clock = new ManualClock();
    const member = groupWith(clock, { 'iops-total': 10, 'iops-total-max': 50 }).join();
    let passed = 0;
    while (member.enter('read', 512) === undefined) passed += 1;
    expect(passed).toBe(51);
  });

  it('a long request counts as many operations of iops-size', () => {
    const clock = new ManualClock();
    const member = groupWith(clock, { 'iops-total': 10, 'iops-size': 4096 }).join();
    let passed = false;
    void Promise.resolve(member.enter('write', 4096 * 10));
    void Promise.resolve(member.enter('write', 512)).then(() => {
      passed = true;
    });
    // Ten operations, one of them allowed at once: nine tenths of a second.
    clock.advance(899);
    expect(clock.pendingTimers).toBe(1);
    clock.advance(2);
    expect(clock.pendingTimers).toBe(0);
    return Promise.resolve().then(() => expect(passed).toBe(true));
  });

  it('members share a rate fairly, and each keeps its order', () => {
    const clock = new ManualClock();
    const group = groupWith(clock, { 'iops-total': 100 });
    const order: string[] = [];
    const members = ['a', 'b', 'c'].map((name) => ({ name, member: group.join() }));
    for (const { name, member } of members) {
      for (let index = 0; index < 40; index += 1) {
        void Promise.resolve(member.enter('write', 512)).then(() => order.push(name + index));
      }
    }
    clock.advance(500);
    return Promise.resolve().then(() => {
      const counts = members.map(({ name }) => order.filter((one) => one.startsWith(name)));
      const waited = counts.map((list) => list.length);
      // The first filled the allowance before the others came.
      expect((waited[0] ?? 0) - (waited[2] ?? 0)).toBeLessThanOrEqual(12);
      expect(Math.abs((waited[1] ?? 0) - (waited[2] ?? 0))).toBeLessThanOrEqual(1);
      for (const [index, list] of counts.entries()) {
        const name = members[index]?.name ?? '';
        expect(list).toEqual(list.map((_, at) => `${name}${at}`));
      }
    });
  });

  it('lets each request pass when a plain model of the buckets does', async () => {
    const rate = fc.constantFrom<RateName>('bps-total', 'bps-write', 'iops-total', 'iops-write');
    const limit = fc.record({
      rate,
      average: fc.integer({ min: 5, max: 2000 }),
      factor: fc.integer({ min: 1, max: 20 }),
      burstLength: fc.integer({ min: 1, max: 4 }),
      bursts: fc.boolean(),
    });
    const request = fc.record({
      afterMs: fc.integer({ min: 0, max: 800 }),
      bytes: fc.integer({ min: 1, max: 3000 }),
    });
    const load = fc.array(request, { minLength: 1, maxLength: 30 });
    const limits = fc.uniqueArray(limit, { selector: ({ rate: name }) => name.slice(0, 3) });
    await fc.assert(
      fc.asyncProperty(limits, load, async (chosen, requests) => {
        const clock = new ManualClock();
        const config: Record<string, number> = {};
        for (const { rate: name, average, factor, burstLength, bursts } of chosen) {
          config[name] = average;
          if (!bursts) continue;
          config[`${name}-max`] = average * factor;
          config[`${name}-max-length`] = burstLength;
        }
        const member = groupWith(clock, config).join();
        const passed: number[] = [];
        for (const [index, { afterMs, bytes }] of requests.entries()) {
          const arrival = clock.now() + afterMs;
          while (clock.now() < arrival) {
            clock.advance(Math.min(1, arrival - clock.now()));
            await Promise.resolve();
          }
          void Promise.resolve(member.enter('write', bytes)).then(() => {
            passed[index] = clock.now();
          });
          await Promise.resolve();
        }
        while (clock.advanceToNext()) {
          for (let turn = 0; turn < 3; turn += 1) await Promise.resolve();
        }
        const expected = modelTimes(chosen, requests);
        for (const [index, at] of expected.entries()) {
          expect(Math.abs((passed[index] ?? Infinity) - at)).toBeLessThanOrEqual(2 + index / 10);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('new limits count for those who wait', async () => {
    const clock = new ManualClock();
    const group = groupWith(clock, { 'bps-total': 1 });
    const member = group.join();
    await member.enter('write', KIB);
    const waits = member.enter('write', KIB);
    expect(waits).toBeInstanceOf(Promise);
    group.configure(withLimits(group.config, { 'bps-total': 0 }));
    await waits;
    expect(clock.pendingTimers).toBe(0);
  });

  it('refuses limits as a whole and keeps those it had', async () => {
    const group = groupWith(new ManualClock(), { 'bps-total': 7 });
    const change = withLimits(group.config, { 'bps-read': 1 });
    expect((await errorOf(() => group.configure(change))).message).toContain('at the same time');
    expect(group.config.rates['bps-total'].average).toBe(7);
  });
});

describe('throttle node', () => {
  async function stage(limits: ThrottleLimits) {
    const clock = new ManualClock();
    const group = groupWith(clock, limits);
    const drivers = [nullDriver, throttle] as unknown as Driver[];
    const registry = createRegistry({
      drivers: Object.fromEntries(drivers.map((one) => [one.name, () => Promise.resolve(one)])),
    });
    const graph = createGraph({
      host: new MemoryHost(),
      registry,
      clock,
      random: new MemoryHost().random,
      throttleGroup: (name) => (name === 'g' ? group : null),
    });
    const file = { driver: 'null-co', size: 2 ** 20 };
    const options = { driver: 'throttle', 'throttle-group': 'g', file };
    const node = await graph.open({ ...options, 'node-name': 't' });
    const user = await graph.attach(node, 'guest', READ_WRITE);
    return { clock, group, graph, node, user, options };
  }

  it('a drain lets waiting requests through and holds nobody back meanwhile', async () => {
    const { clock, group, graph, node, user } = await stage({ 'bps-total': 1 });
    await user.write(0, new Uint8Array(KIB));
    const waiting = user.write(0, new Uint8Array(KIB));
    const section = await graph.drain([node]);
    expect(node.inFlight).toBe(0);
    await waiting;
    section.end();
    expect(user.read(0, new Uint8Array(512))).toBeInstanceOf(Promise);
    const end = await graph.drain([node]);
    end.end();
    expect(clock.pendingTimers).toBe(0);
    await user.detach();
    await graph.closeAll();
    expect(group.inUse).toBe(false);
  });

  it('one that is opened over drained nodes limits nobody until the section ends', async () => {
    const { graph, node, user } = await stage({ 'iops-total': 1 });
    const section = await graph.drain([node]);
    const over = await graph.open({ driver: 'throttle', 'throttle-group': 'g', file: 't' });
    const guest = await graph.attach(over, 'late guest', READ_WRITE);
    let done = false;
    const reading = Promise.resolve(guest.read(0, new Uint8Array(512))).then(() => {
      done = true;
    });
    await user.node.flush();
    expect(done).toBe(false);
    section.end();
    (await graph.drain([over, node])).end();
    await reading;
    await Promise.all([guest.detach(), user.detach()]);
    await graph.closeAll();
  });

  it('flushes and status never wait; zeroes and discards count as writes', async () => {
    const { graph, node, user } = await stage({ 'iops-write': 1 });
    await user.writeZeroes(0, 4096);
    expect(user.flush()).toBeUndefined();
    expect(node.blockStatus(0, 512, false)).not.toBeInstanceOf(Promise);
    expect(user.read(0, new Uint8Array(512))).toBeUndefined();
    const waiting = user.writeZeroes(0, 4096);
    expect(waiting).toBeInstanceOf(Promise);
    (await graph.drain([node])).end();
    await waiting;
    await user.detach();
    await graph.closeAll();
  });

  it('a group that is not there is refused, and a failed open uses none', async () => {
    const { group, graph, node, user, options } = await stage({});
    await user.detach();
    await graph.close(node);
    const missing = { ...options, 'throttle-group': 'no' };
    expect((await errorOf(() => graph.open(missing))).message).toBe(
      "Throttle group 'no' does not exist",
    );
    expect(group.inUse).toBe(false);
  });
});

