// SPDX-License-Identifier: Apache-2.0
// The closing table and the JSON of a bench run.
import { cpus, release, totalmem } from 'node:os';
import type { Result } from './harness.js';
import { median } from './harness.js';

const MIB = 1024 * 1024;

interface Row {
  readonly question: string;
  readonly mib: number;
  readonly ours: number;
  readonly peer: number | null;
  /** Peer's time over ours: above 1, ours is faster. */
  readonly ratio: number | null;
  /** The same without the start-up of either. */
  readonly ratioWithoutStartUp: number | null;
  /** The same with the flush of the target in both times. */
  readonly durableRatio: number | null;
  readonly cpu: number | null;
  readonly peerCpu: number | null;
  /** Processor time of the peer over ours, and the same without start-up. */
  readonly cpuRatio: number | null;
  readonly cpuRatioWithoutStartUp: number | null;
}

function rowOf(result: Result): Row {
  const ours = median(result.ours);
  const peer = result.peer === null ? null : median(result.peer);
  const { startUpIncluded } = result;
  const cpu = told(medianOrNull(result.cpu?.ours));
  const peerCpu = told(medianOrNull(result.cpu?.peer));
  return {
    question: result.question,
    mib: result.bytes / MIB,
    ours,
    peer,
    ratio: peer === null ? null : peer / ours,
    ratioWithoutStartUp: netRatio({ ours, peer }, startUpIncluded),
    durableRatio: durableRatio(result),
    cpu,
    peerCpu,
    cpuRatio: cpu === null || peerCpu === null ? null : peerCpu / cpu,
    cpuRatioWithoutStartUp:
      cpu === null || result.startUpCpu === undefined
        ? null
        : netRatio({ ours: cpu, peer: peerCpu }, result.startUpCpu),
  };
}

interface OfBoth {
  readonly ours: number;
  readonly peer: number | null;
}

function netRatio({ ours, peer }: OfBoth, startUp: OfBoth): number | null {
  const work = ours - startUp.ours;
  const peerWork = peer === null ? null : peer - (startUp.peer ?? 0);
  return peerWork === null || work <= 0 || peerWork <= 0 ? null : peerWork / work;
}

/** Where nobody tells what something cost, the figure is none. */
function told(value: number | null): number | null {
  return value === null || Number.isNaN(value) ? null : value;
}

function medianOrNull(values: readonly number[] | null | undefined): number | null {
  return values === null || values === undefined ? null : median(values);
}

function durableRatio({ ours, peer, flush }: Result): number | null {
  if (flush === undefined || flush.peer === null || peer === null) return null;
  const total = (times: readonly number[], flushes: readonly number[]): number =>
    median(times.map((time, index) => time + (flushes[index] ?? 0)));
  return total(peer, flush.peer) / total(ours, flush.ours);
}

const HEADINGS = [
  'question', 'MiB', 'ours s', 'MiB/s', 'peer s', 'MiB/s', 'ratio', 'no start-up',
  'durable', 'cpu', 'peer cpu', 'cpu ratio', 'no start-up', 'verified',
];

export function table(results: readonly Result[]): string {
  const rows = results.map((result) => {
    const row = rowOf(result);
    return [
      row.question,
      row.mib.toFixed(0),
      row.ours.toFixed(3),
      (row.mib / row.ours).toFixed(0),
      row.peer?.toFixed(3) ?? '-',
      row.peer === null ? '-' : (row.mib / row.peer).toFixed(0),
      row.ratio?.toFixed(2) ?? '-',
      row.ratioWithoutStartUp?.toFixed(2) ?? '-',
      row.durableRatio?.toFixed(2) ?? '-',
      row.cpu?.toFixed(3) ?? '-',
      row.peerCpu?.toFixed(3) ?? '-',
      row.cpuRatio?.toFixed(2) ?? '-',
      row.cpuRatioWithoutStartUp?.toFixed(2) ?? '-',
      result.verified === null ? '-' : result.verified ? 'yes' : 'NO',
    ];
  });
  return formatTable([HEADINGS, ...rows]);
}

/** Columns as wide as their widest cell; the first to the left, the others to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column === 0 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd();
  const [head = [], ...body] = rows;
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return [line(head), rule, ...body.map(line)].join('\n');
}

export function json(results: readonly Result[], tools: Readonly<Record<string, string>>): string {
  const machine = {
    cpu: cpus()[0]?.model ?? '',
    cpus: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
  };
  const rows = results.map((result) => ({ ...result, medians: rowOf(result) }));
  return `${JSON.stringify({ machine, tools, results: rows }, null, 2)}\n`;
}
