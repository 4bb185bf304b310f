// SPDX-License-Identifier: Apache-2.0
// Runs plain batches in the addon: read, look for zeroes and write on a thread of the host's pool,
// without a thread of JavaScript to start and to tell.
//
// Plain: host files on both sides, nothing deflated. The results are those of runLaneTask(). The
// batch is turned into numbers, and so is the answer (native/copy.cc has their order).

import { constants } from 'node:os';
import { COPY_LIMITS, errnoText, kindOfErrno, must } from '../../base/index.js';
import type { NativeAddon } from '../../host/index.js';
import type { LanePart, LaneResult, LaneStep, LaneTask } from './lane-task.js';
import type { LaneMessage } from './lane-worker.js';

const STEP_HEAD = 5;
const PART_NUMBERS = 3;

/** Outcomes as the addon numbers them. */
const OUTCOMES = ['written', 'zero', 'source', 'target', 'cancelled'] as const;

const errnoNames = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]));

type PlainPart = Extract<LanePart, { kind: 'data' | 'zero' }>;

/** Whether the addon can do all of it. */
export function isPlain(task: LaneTask): boolean {
  return task.steps.every(
    ({ parts, target, zeroGranularity, skipZeroes, deflate }) =>
      target.kind === 'file' &&
      !deflate &&
      zeroGranularity <= COPY_LIMITS.batchMaxBytes &&
      (skipZeroes || zeroGranularity === 0) &&
      parts.every(isPlainPart),
  );
}

function isPlainPart(part: LanePart): part is PlainPart {
  return part.kind === 'data' || part.kind === 'zero';
}

/** Runs a plain task; the caller holds its descriptors. */
export async function runNatively(
  addon: NativeAddon,
  { task, descriptors }: LaneMessage,
): Promise<LaneResult[]> {
  const program = encode(task.steps, descriptors);
  const answer = await addon.copyLater(program, task.cancel, task.flushedSoon === true ? 1 : 0);
  return decode(answer, task.steps.length);
}

function encode(steps: readonly LaneStep[], descriptors: readonly number[]): Float64Array {
  let size = 1;
  for (const { parts } of steps) size += STEP_HEAD + parts.length * PART_NUMBERS;
  const program = new Float64Array(size);
  let at = 0;
  program[at++] = steps.length;
  for (const { parts, length, target, zeroGranularity, hostCopies } of steps) {
    if (target.kind !== 'file') throw new TypeError('the addon writes to files');
    program[at++] = must(descriptors[target.file], 'each file has a descriptor');
    program[at++] = target.offset;
    program[at++] = length;
    program[at++] = hostCopies === true && zeroGranularity === 0 ? -1 : zeroGranularity;
    program[at++] = parts.length;
    for (const part of parts) {
      const isData = part.kind === 'data';
      program[at++] = isData ? must(descriptors[part.file], 'each file has a descriptor') : -1;
      program[at++] = isData ? part.offset : 0;
      program[at++] = part.length;
    }
  }
  return program;
}

function decode(answer: Float64Array, count: number): LaneResult[] {
  const results: LaneResult[] = [];
  let at = 0;
  const next = (): number => must(answer[at++], 'the answer is whole');
  for (let index = 0; index < count; index += 1) {
    const outcome = must(OUTCOMES[next()], 'the outcome has a name');
    const errno = next();
    const bytes = next();
    const ranges = next();
    const zeroRanges = [...answer.subarray(at, at + 2 * ranges)];
    at += 2 * ranges;
    results.push(resultOf(outcome, { errno, bytes, zeroRanges }));
  }
  return results;
}

function resultOf(
  outcome: (typeof OUTCOMES)[number],
  found: { readonly errno: number; readonly bytes: number; readonly zeroRanges: number[] },
): LaneResult {
  const { bytes, zeroRanges } = found;
  if (outcome === 'written') {
    return { outcome, bytes, zeroRanges, deflated: false, failure: null };
  }
  const nothing = { bytes: 0, zeroRanges: [], deflated: false } as const;
  if (outcome === 'zero' || outcome === 'cancelled') return { outcome, ...nothing, failure: null };
  const errno = errnoNames.get(found.errno) ?? 'EIO';
  const failure = { side: outcome, kind: kindOfErrno(errno), errno, message: errnoText(errno) };
  return { outcome: 'error', ...nothing, failure };
}
