// SPDX-License-Identifier: Apache-2.0
// A lane task: one bounded batch of host-file work as pure data, and the one way to run it.
//
// A step collects its parts (file ranges, deflated clusters, slab ranges, zeroes), optionally finds
// out what of it is zero, optionally deflates it, and puts it into a host file or into the slab. A
// step fails alone: the others of the batch go on. The cancel flag is looked at between steps;
// steps not begun are reported as `cancelled`. Nothing here knows nodes, jobs or clusters.

import { kindOfErrno, toBlockError } from '../../base/index.js';
import type { ErrorKind, Eventually } from '../../base/index.js';
import { deflateCluster, inflateCluster, isZero } from '../../codec/index.js';

/** Files by their index in the batch; offsets and lengths in bytes. */
export type LanePart =
  | {
      readonly kind: 'data';
      readonly length: number;
      readonly file: number;
      readonly offset: number;
    }
  | { readonly kind: 'zero'; readonly length: number }
  | { readonly kind: 'slab'; readonly length: number; readonly offset: number }
  | {
      readonly kind: 'compressed';
      readonly length: number;
      readonly file: number;
      readonly offset: number;
      readonly compressedLength: number;
      readonly inflatedLength: number;
      /** Where in the inflated cluster the part begins. */
      readonly skip: number;
    };

export type LaneTarget =
  | { readonly kind: 'file'; readonly file: number; readonly offset: number }
  | { readonly kind: 'slab'; readonly offset: number };

export interface LaneStep {
  readonly parts: readonly LanePart[];
  /** Sum of the parts' lengths. */
  readonly length: number;
  readonly target: LaneTarget;
  /** Zeroes are looked for in units of this many bytes; 0 = not at all. */
  readonly zeroGranularity: number;
  /** Zero units inside other data are left out and reported (only where the target allows it). */
  readonly skipZeroes: boolean;
  /** Puts the deflated bytes into the slab, or, when they are not fewer, the bytes as they are. */
  readonly deflate: boolean;
}

export interface LaneTask {
  readonly steps: readonly LaneStep[];
  /** Shared memory of the batch; null when no step names it. */
  readonly slab: SharedArrayBuffer | null;
  /** One number: not 0 = do not begin another step. */
  readonly cancel: Int32Array;
}

export interface LaneFailure {
  readonly side: 'source' | 'target';
  readonly kind: ErrorKind;
  readonly errno: string;
  readonly message: string;
}

export interface LaneResult {
  readonly outcome: 'written' | 'zero' | 'error' | 'cancelled';
  /** Bytes put into the target (deflated ones included). */
  readonly bytes: number;
  /** Ranges that are zero and were left out: offset in the step and length, in turn. */
  readonly zeroRanges: readonly number[];
  /** Whether the slab holds deflated bytes. */
  readonly deflated: boolean;
  readonly failure: LaneFailure | null;
}

/** What a task reads and writes; both executors give one for each file of the batch. */
export interface LaneFile {
  /** Fewer bytes than asked only at the end of the file. */
  read(buffer: Uint8Array, offset: number): Eventually<number>;
  write(buffer: Uint8Array, offset: number): Eventually<void>;
}

const CANCELLED: LaneResult = {
  outcome: 'cancelled',
  bytes: 0,
  zeroRanges: [],
  deflated: false,
  failure: null,
};

/** Runs the steps in order; never throws for an I/O error. One result for each step. */
export async function runLaneTask(
  task: LaneTask,
  files: readonly LaneFile[],
  scratch: ScratchBuffer,
): Promise<LaneResult[]> {
  const results: LaneResult[] = [];
  for (const step of task.steps) {
    if (Atomics.load(task.cancel, 0) !== 0) {
      results.push(CANCELLED);
      continue;
    }
    results.push(await runStep(task, step, { files, scratch }));
  }
  return results;
}

/** A buffer that grows and is used again by the next step. */
export class ScratchBuffer {
  #bytes = new Uint8Array(0);

  take(length: number): Uint8Array {
    if (this.#bytes.length < length) this.#bytes = new Uint8Array(length);
    return this.#bytes.subarray(0, length);
  }
}

interface Tools {
  readonly files: readonly LaneFile[];
  readonly scratch: ScratchBuffer;
}

async function runStep(task: LaneTask, step: LaneStep, tools: Tools): Promise<LaneResult> {
  const buffer = tools.scratch.take(step.length);
  try {
    await gather(task, step, { tools, buffer });
  } catch (error) {
    return failed('source', error);
  }
  const zeroes = step.zeroGranularity > 0 ? zeroRanges(buffer, step.zeroGranularity) : [];
  if (zeroes.length === 2 && zeroes[1] === step.length) {
    return { outcome: 'zero', bytes: 0, zeroRanges: [], deflated: false, failure: null };
  }
  if (step.deflate) return putDeflated(task, step, buffer);
  try {
    return await put(task, step, { tools, buffer, zeroes: step.skipZeroes ? zeroes : [] });
  } catch (error) {
    return failed('target', error);
  }
}

async function gather(
  task: LaneTask,
  step: LaneStep,
  into: { readonly tools: Tools; readonly buffer: Uint8Array },
): Promise<void> {
  let position = 0;
  for (const part of step.parts) {
    const piece = into.buffer.subarray(position, position + part.length);
    position += part.length;
    if (part.kind === 'zero') piece.fill(0);
    else if (part.kind === 'slab') piece.set(slabRange(task, part.offset, part.length));
    else if (part.kind === 'data') await readAll(fileAt(into.tools, part.file), piece, part.offset);
    else await inflatePart(part, piece, into.tools);
  }
}

async function inflatePart(
  part: Extract<LanePart, { kind: 'compressed' }>,
  piece: Uint8Array,
  tools: Tools,
): Promise<void> {
  const packed = new Uint8Array(part.compressedLength);
  await readAll(fileAt(tools, part.file), packed, part.offset);
  const whole = inflateCluster(packed, part.inflatedLength);
  piece.set(whole.subarray(part.skip, part.skip + part.length));
}

/** Bytes past the end of the file read as zeroes. */
async function readAll(file: LaneFile, buffer: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < buffer.length) {
    const result = file.read(buffer.subarray(done), offset + done);
    const count = result instanceof Promise ? await result : result;
    if (count === 0) break;
    done += count;
  }
  if (done < buffer.length) buffer.fill(0, done);
}

function putDeflated(task: LaneTask, step: LaneStep, buffer: Uint8Array): LaneResult {
  if (step.target.kind !== 'slab') throw new TypeError('deflated bytes go to the slab');
  const packed = deflateCluster(buffer, step.length - 1);
  const bytes = packed ?? buffer;
  slabRange(task, step.target.offset, bytes.length).set(bytes);
  return {
    outcome: 'written',
    bytes: bytes.length,
    zeroRanges: [],
    deflated: packed !== null,
    failure: null,
  };
}

async function put(
  task: LaneTask,
  step: LaneStep,
  from: { readonly tools: Tools; readonly buffer: Uint8Array; readonly zeroes: readonly number[] },
): Promise<LaneResult> {
  const { target } = step;
  let position = 0;
  let bytes = 0;
  for (let index = 0; index <= from.zeroes.length; index += 2) {
    const end = from.zeroes[index] ?? step.length;
    if (end > position) {
      const piece = from.buffer.subarray(position, end);
      if (target.kind === 'slab') {
        slabRange(task, target.offset + position, piece.length).set(piece);
      } else {
        const result = fileAt(from.tools, target.file).write(piece, target.offset + position);
        if (result instanceof Promise) await result;
      }
      bytes += piece.length;
    }
    position = end + (from.zeroes[index + 1] ?? 0);
  }
  return { outcome: 'written', bytes, zeroRanges: from.zeroes, deflated: false, failure: null };
}

/** Offset and length, in turn, of the zero runs of `buffer` in units of `granularity` bytes. */
export function zeroRanges(buffer: Uint8Array, granularity: number): number[] {
  const ranges: number[] = [];
  for (let start = 0; start < buffer.length; start += granularity) {
    const end = Math.min(start + granularity, buffer.length);
    if (!isZero(buffer.subarray(start, end))) continue;
    const last = ranges.length - 1;
    if (last > 0 && (ranges[last - 1] ?? 0) + (ranges[last] ?? 0) === start) {
      ranges[last] = end - (ranges[last - 1] ?? 0);
    } else ranges.push(start, end - start);
  }
  return ranges;
}

function slabRange(task: LaneTask, offset: number, length: number): Uint8Array {
  if (task.slab === null) throw new TypeError('the batch has no slab');
  return new Uint8Array(task.slab, offset, length);
}

function fileAt(tools: Tools, index: number): LaneFile {
  const file = tools.files[index];
  if (file === undefined) throw new TypeError(`the batch has no file ${index}`);
  return file;
}

function failed(side: LaneFailure['side'], thrown: unknown): LaneResult {
  const error = toBlockError(thrown);
  const kind = error.kind === 'io' ? kindOfErrno(error.errno) : error.kind;
  return {
    outcome: 'error',
    bytes: 0,
    zeroRanges: [],
    deflated: false,
    failure: { side, kind, errno: error.errno, message: error.message },
  };
}
