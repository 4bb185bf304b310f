// SPDX-License-Identifier: Apache-2.0
// Events of qcow2 and of unaligned writes, and failures at them, beside the real qemu-io.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import {
  EVENTS,
  failuresAfter,
  failuresOf,
  makeImage,
  momentsOf,
  OPERATIONS,
  PLAIN,
  RMW_EVENTS,
  UNALIGNED,
} from '../helpers/debug-events.js';
import type { Moment, Operation } from '../helpers/debug-events.js';
import { hasReference } from '../helpers/reference.js';
import { someOf } from '../helpers/seeds.js';

/**
 * Where the steps themselves differ. New tables are written with the next flush here, whatever
 * room there is; clusters are freed only after it; nothing is zeroed that lies past the end of the
 * file; a new size is durable when the resize ends; and a smaller one is a matter of one write,
 * while the reference empties tables first.
 */
const OTHERWISE: readonly (readonly [RegExp, RegExp, Moment])[] = [
  [/^write/, /^pwritev_zero$/, 'never'],
  [/refcount blocks/, /^(?:l1_update|l2_update|refblock_(?:update_part|alloc_.*))$/, 'flush'],
  [/over compressed data/, /^refblock_update_part$/, 'flush'],
  [/^discard|unmaps/, /^refblock_load$/, 'flush'],
  [/^discard|unmaps/, /^refblock_update_part$/, 'never'],
  [/^growth without/, /^flush_to_disk$/, 'never'],
  [/^growth with a|^shrinking/, /^flush_to_disk$/, 'operation'],
  [/^shrinking/, /^(?:cluster_alloc|l1_update|l2_alloc_write|l2_update|pwritev_zero)$/, 'never'],
];

const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;

function isKnown(operation: Operation, event: string, ours: Moment): boolean {
  return OTHERWISE.some(
    ([name, point, moment]) =>
      name.test(operation.name) && point.test(event) && moment === ours,
  );
}

describe.skipIf(!hasReference)('beside the real program', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'events-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it.each(OPERATIONS)('$name passes the same events', async (operation) => {
    makeImage(folder, operation);
    // Each operation with a third of the events, the next one with others.
    const events = someOf(EVENTS, 3, OPERATIONS.indexOf(operation));
    const { theirs, ours } = await momentsOf({ folder, operation }, events);
    const expected = events.map((event, index) => {
      const moment = ours[index] as Moment;
      return [event, isKnown(operation, event, moment) ? moment : theirs[index]];
    });
    expect(events.map((event, index) => [event, ours[index]])).toEqual(expected);
  });

  const points = EVENTS.filter((event) => /aio|cow|compressed|space|_load/.test(event));
  const data = OPERATIONS.filter(({ command }) => /^(?:read|write (?!-z))/.test(command));

  it.each([
    ...data.map((operation) => ({ name: operation.name, operation, events: points })),
    ...UNALIGNED.map((operation) => ({ name: operation.name, operation, events: RMW_EVENTS })),
  ])('$name fails at the same events', async ({ operation, events }) => {
    makeImage(folder, operation);
    const { theirs, ours } = await failuresAfter({ folder, operation }, events);
    const expected = events.map((event, index) => {
      // The reference writes what it could not read.
      const goesOn = theirs[index] === null && /rmw_(?:head|tail|after_head)/.test(event);
      return [event, goesOn ? ours[index] : theirs[index]];
    });
    expect(events.map((event, index) => [event, ours[index]])).toEqual(expected);
  });

  it('rules of all kinds meet the same requests', async () => {
    const event = fc.constantFrom('none', 'pwritev', 'pwritev_zero', 'pwritev_done');
    const state = fc.constantFrom(0, 1, 2, 3);
    const injection = fc.record(
      {
        event,
        state,
        iotype: fc.constantFrom('read', 'write', 'write-zeroes', 'discard', 'flush'),
        errno: fc.constantFrom(28, 5, 22, 0, -1),
        sector: fc.constantFrom(-1, 0, 7, 8, 16, 31, -4),
        once: fc.boolean(),
        immediately: fc.boolean(),
      },
      { requiredKeys: ['event'] },
    );
    const change = fc.record({ event, state, new_state: fc.constantFrom(1, 2, 3, 4) });
    const rules = fc.record({
      'inject-error': fc.array(injection, { minLength: 1, maxLength: 4 }),
      'set-state': fc.array(change, { minLength: 1, maxLength: 3 }),
    });
    const requests = fc.array(fc.constantFrom(...PLAIN), { minLength: 3, maxLength: 9 });
    const operation = UNALIGNED[0] as Operation;
    makeImage(folder, operation);
    const runs = fc
      .sample(fc.tuple(rules, requests), { seed: 7, numRuns: isCampaign ? 60 : 30 })
      .map(([set, operations]) => ({ rules: set, operations }));
    const { theirs, ours } = await failuresOf({ folder, operation }, runs);
    const shown = (all: typeof ours): unknown => runs.map((run, at) => ({ ...run, got: all[at] }));
    expect(shown(ours)).toEqual(shown(theirs));
  });
});
