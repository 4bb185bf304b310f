// SPDX-License-Identifier: Apache-2.0
// Laws of voting, and a quorum against a model: with fewer bad children than it can bear it reads
// what was written, repairs what differs, and keeps its children alike whatever overlaps.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { tally } from '../../src/drivers/filters/quorum/votes.js';
import { MemoryHost, pattern } from '../helpers/graph.js';
import { quorumStage } from '../helpers/quorum.js';

const SIZE = 16 * 1024;
const votes = fc.array(fc.option(fc.nat(3), { nil: null }), { maxLength: 9 });
const same = (left: number, right: number): boolean => left === right;

describe('votes', () => {
  it('every vote counts once, and nobody has more than the winner', () => {
    fc.assert(
      fc.property(votes, (answers) => {
        const counted = tally(answers, same);
        const given = answers.flatMap((value, voter) => (value === null ? [] : [voter]));
        if (counted === null) {
          expect(given).toEqual([]);
          return;
        }
        const versions = [counted.winner, ...counted.losers];
        expect(versions.flatMap(({ voters }) => [...voters]).toSorted((a, b) => a - b)).toEqual(
          given,
        );
        for (const { value, voters } of versions) {
          expect(voters.length).toBeLessThanOrEqual(counted.winner.voters.length);
          expect(voters.every((voter) => answers[voter] === value)).toBe(true);
        }
      }),
    );
  });

  it('more than half of the votes win in any order', () => {
    const order = fc.nat(8).chain((bad) =>
      fc.record({
        bad: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: bad, maxLength: bad }),
        seed: fc.array(fc.nat(), { minLength: 2 * bad + 1, maxLength: 2 * bad + 1 }),
      }),
    );
    fc.assert(
      fc.property(order, ({ bad, seed }) => {
        const all = [...bad, ...Array.from({ length: bad.length + 1 }, () => 0)];
        const mixed = all
          .map((value, index) => ({ value, key: seed[index] ?? 0 }))
          .toSorted((a, b) => a.key - b.key);
        expect(tally(mixed.map(({ value }) => value), same)?.winner.value).toBe(0);
      }),
    );
  });

  it('of two with as many votes the one that came up last wins', () => {
    expect(tally([1, 2, 3], same)?.winner.value).toBe(3);
    expect(tally([1, 2, 2, 1], same)?.winner.value).toBe(2);
  });
});

const range = fc
  .record({ offset: fc.nat(SIZE - 1), length: fc.integer({ min: 1, max: 4096 }) })
  .map(({ offset, length }) => ({ offset, length: Math.min(length, SIZE - offset) }));
const operations = fc.array(
  fc.record({ kind: fc.constantFrom('read', 'write', 'zero'), range, seed: fc.nat(1000) }),
  { maxLength: 12 },
);

describe('a quorum', () => {
  it('reads the model and repairs the children, as long as a majority is right', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 2 }),
        fc.array(fc.record({ at: fc.nat(SIZE - 1), child: fc.nat(4) }), { maxLength: 8 }),
        operations,
        fc.option(fc.nat(), { nil: null }),
        async (bearable, damage, work, seed) => {
          const model = Buffer.from(pattern(SIZE));
          const contents = Array.from({ length: 2 * bearable + 1 }, () => Buffer.from(model));
          for (const { at, child } of damage) {
            const bytes = contents[child % bearable];
            bytes?.writeUInt8((bytes[at] ?? 0) ^ 0x5a, at);
          }
          const host = seed === null ? new MemoryHost() : new MemoryHost({ seed });
          const options = { 'vote-threshold': bearable + 1, 'rewrite-corrupted': true };
          const stage = await quorumStage(contents, options, { host });
          for (const { kind, range: { offset, length }, seed: fill } of work) {
            if (kind === 'write') {
              await stage.user.write(offset, pattern(length, fill));
              model.set(pattern(length, fill), offset);
            } else if (kind === 'zero') {
              await stage.user.writeZeroes(offset, length);
              model.fill(0, offset, offset + length);
            } else {
              const bytes = new Uint8Array(length);
              await stage.user.read(offset, bytes);
              expect(model.subarray(offset, offset + length).equals(bytes)).toBe(true);
            }
          }
          await stage.user.read(0, new Uint8Array(SIZE));
          for (const bytes of await stage.contents()) expect(bytes.equals(model)).toBe(true);
          expect(stage.events.filter((event) => event.startsWith('QUORUM_FAILURE'))).toEqual([]);
          await stage.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('keeps its children alike and reports nobody, whatever overlaps', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), operations, async (seed, work) => {
        const contents = Array.from({ length: 3 }, () => pattern(SIZE));
        const host = new MemoryHost({ seed, laterChance: 0.7 });
        const options = { 'vote-threshold': 2, 'rewrite-corrupted': true };
        const stage = await quorumStage(contents, options, { host });
        await Promise.all(
          work.map(({ kind, range: { offset, length }, seed: fill }) => {
            if (kind === 'write') return stage.user.write(offset, pattern(length, fill));
            if (kind === 'zero') return stage.user.writeZeroes(offset, length);
            return stage.user.read(offset, new Uint8Array(length));
          }),
        );
        const [first, ...others] = await stage.contents();
        for (const bytes of others) expect(bytes.equals(first as Buffer)).toBe(true);
        expect(stage.events).toEqual([]);
        await stage.close();
      }),
      { numRuns: 150 },
    );
  });

  it('that can bear one failure never loses data when any one operation fails', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('read', 'write', 'write-zeroes', 'sync'),
        fc.integer({ min: 1, max: 12 }),
        fc.nat(2),
        operations,
        async (operation, nth, child, work) => {
          const model = Buffer.from(pattern(SIZE));
          const contents = Array.from({ length: 3 }, () => pattern(SIZE));
          const stage = await quorumStage(contents, { 'vote-threshold': 2 });
          const fault = { operation, nth, errno: 'EIO', path: `/c${child}` } as const;
          stage.host.faults.add(fault);
          for (const { kind, range: { offset, length }, seed: fill } of work) {
            if (kind === 'zero') {
              await stage.user.writeZeroes(offset, length);
              model.fill(0, offset, offset + length);
            } else {
              await stage.user.write(offset, pattern(length, fill));
              model.set(pattern(length, fill), offset);
              await stage.user.flush();
            }
            const bytes = new Uint8Array(SIZE);
            await stage.user.read(0, bytes);
            expect(model.equals(bytes)).toBe(true);
          }
          const reported = new Set(stage.events);
          reported.delete(`QUORUM_REPORT_BAD c${child}`);
          expect([...reported]).toEqual([]);
          stage.host.faults.clear();
          await stage.close().catch(() => undefined);
        },
      ),
      { numRuns: 80 },
    );
  });
});
