// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { alternate, type BenchContext, median, type Result } from '../../../bench/harness.js';
import { json, table } from '../../../bench/report.js';

function contextOf(rounds: number): BenchContext {
  return { folder: '', size: 0, rounds, ours: [], peer: () => null, log: () => undefined };
}

async function orderOf(rounds: number, withPeer: boolean) {
  const order: string[] = [];
  const runOf = (who: 'ours' | 'peer') => async () => {
    order.push(who);
    return order.length;
  };
  const times = await alternate(contextOf(rounds), {
    reset: (who) => void order.push(`reset ${who}`),
    ours: runOf('ours'),
    peer: withPeer ? runOf('peer') : null,
  });
  return { runs: order.filter((item) => !item.startsWith('reset')), order, times };
}

const result = (ours: readonly number[], peer: readonly number[] | null): Result => ({
  question: 'copy',
  bytes: 100 * 1024 * 1024,
  ours,
  peer,
  startUpIncluded: { ours: 0.5, peer: peer === null ? null : 0 },
  verified: true,
});

describe('the bench harness', () => {
  it('warms both up, then lets them take turns at going first', async () => {
    const { runs, times } = await orderOf(2, true);
    expect(runs).toEqual(['ours', 'peer', 'ours', 'peer', 'peer', 'ours']);
    expect(times.ours).toHaveLength(2);
    expect(times.peer).toHaveLength(2);
  });
  it('puts everything back before each run', async () => {
    const { order } = await orderOf(1, true);
    expect(order.filter((item) => item === 'reset ours')).toHaveLength(2);
    expect(order.indexOf('reset ours')).toBeLessThan(order.indexOf('ours'));
  });
  it('measures ours alone without a peer', async () => {
    const { runs, times } = await orderOf(3, false);
    expect(runs).toEqual(['ours', 'ours', 'ours', 'ours']);
    expect(times.peer).toBeNull();
  });
  it('takes the middle of odd counts and the mean of the middle two of even ones', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 2, 9])).toBe(3);
  });
});

describe('the bench report', () => {
  it('gives peer ÷ ours, with and without start-up', () => {
    const row = table([result([1, 1, 1], [2, 2, 2])]).split('\n').at(-1) ?? '';
    expect(row.split(/ {2,}/)).toEqual([
      'copy', '100', '1.000', '100', '2.000', '50', '2.00', '4.00',
      '-', '-', '-', '-', '-', 'yes',
    ]);
  });
  it('adds the flush afterwards to both times for the durable ratio', () => {
    const flush = { ours: [0, 0, 0], peer: [1, 1, 1] };
    const cpu = { ours: [0.5, 0.5, 0.5], peer: [0.25, 0.25, 0.25] };
    const timed = { ...result([1, 1, 1], [2, 2, 2]), flush, cpu };
    const row = table([timed]).split('\n').at(-1) ?? '';
    expect(row.split(/ {2,}/).slice(8, 11)).toEqual(['3.00', '0.500', '0.250']);
  });
  it('gives both ratios of processor time too, where somebody tells it', () => {
    const cpu = { ours: [0.5, 0.5, 0.5], peer: [1, 1, 1] };
    const startUpCpu = { ours: 0.25, peer: 0 };
    const timed = { ...result([1, 1, 1], [2, 2, 2]), cpu, startUpCpu };
    const unknown = { ...timed, cpu: { ours: [NaN], peer: [NaN] } };
    const rows = table([timed, unknown]).split('\n').slice(-2);
    expect(rows.map((row) => row.split(/ {2,}/).slice(9, 13))).toEqual([
      ['0.500', '1.000', '2.00', '4.00'],
      ['-', '-', '-', '-'],
    ]);
  });
  it('leaves the ratio out without a peer', () => {
    const row = table([result([1], null)]).split('\n').at(-1) ?? '';
    expect(row.split(/ {2,}/).slice(4)).toEqual([...Array<string>(9).fill('-'), 'yes']);
  });
  it('keeps every round in the JSON', () => {
    const value = JSON.parse(json([result([1, 2, 3], [4, 5, 6])], { 'qemu-img': '7.2' })) as {
      results: Result[];
    };
    expect(value.results[0]?.ours).toEqual([1, 2, 3]);
  });
});
