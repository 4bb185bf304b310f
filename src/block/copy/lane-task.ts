// SPDX-License-Identifier: Apache-2.0
// A lane task: one bounded batch of host-file work as pure data, and the one way to run it.
//
// A step collects its parts (file ranges, deflated clusters, slab ranges, zeroes), decrypts what is
// encrypted, optionally finds out what of it is zero, optionally deflates it, and puts it into the
// slab or, encrypted where that is asked for, into a host file; large steps go chunk by chunk. A
// step fails alone: the others of the batch go on. The cancel flag is looked at between steps;
// steps not begun are reported as `cancelled`. Nothing here knows nodes, jobs or clusters.

import { COPY_LIMITS, kindOfErrno, settle, toBlockError } from '../../base/index.js';
import type { ErrorKind, Eventually } from '../../base/index.js';
import { isZero, loadCodec, packCluster, unpackCluster } from '../../codec/index.js';
import type { ClusterCodec } from '../../codec/index.js';
import { CipherTable } from '../../crypto/index.js';
import type { CipherKey, CipherPlace } from '../../crypto/index.js';

/** Files by their index in the batch; offsets and lengths in bytes. */
export type LanePart =
  | {
      readonly kind: 'data';
      readonly length: number;
      readonly file: number;
      readonly offset: number;
      readonly cipher?: CipherPlace;
    }
  | { readonly kind: 'zero'; readonly length: number }
  /** Zeroes, decrypted. */
  | { readonly kind: 'unwritten'; readonly length: number; readonly cipher: CipherPlace }
  | { readonly kind: 'slab'; readonly length: number; readonly offset: number }
  | {
      readonly kind: 'compressed';
      readonly length: number;
      readonly file: number;
      readonly offset: number;
      readonly codec?: ClusterCodec;
      readonly compressedLength: number;
      readonly inflatedLength: number;
      /** Where in the inflated cluster the part begins. */
      readonly skip: number;
    };

export type LaneTarget =
  | {
      readonly kind: 'file';
      readonly file: number;
      readonly offset: number;
      /** Whole sectors are encrypted. */
      readonly cipher?: CipherPlace;
    }
  | { readonly kind: 'slab'; readonly offset: number }
  /** Nothing is written: the step is compared with these parts, of the same length. */
  | { readonly kind: 'compare'; readonly parts: readonly LanePart[] };

export interface LaneStep {
  readonly parts: readonly LanePart[];
  /** Sum of the parts' lengths. */
  readonly length: number;
  readonly target: LaneTarget;
  /** Zeroes are looked for in units of this many bytes; 0 = not at all. */
  readonly zeroGranularity: number;
  /** Zero units inside other data are left out and reported (only where the target allows it). */
  readonly skipZeroes: boolean;
  /** The host may copy by itself (nothing is looked for then); a hint. */
  readonly hostCopies?: boolean;
  /** Puts the deflated bytes into the slab, or, when they are not fewer, the bytes as they are. */
  readonly deflate: boolean;
  /** In which way; default deflate. */
  readonly codec?: ClusterCodec;
}

export interface LaneTask {
  readonly steps: readonly LaneStep[];
  /** Shared memory of the batch; null when no step names it. */
  readonly slab: SharedArrayBuffer | null;
  /** Parts and targets name them by their place; keys in shared memory are not copied. */
  readonly ciphers?: readonly CipherKey[];
  /** One number: not 0 = do not begin another step. */
  readonly cancel: Int32Array;
  /** A hint: what is written is flushed soon, so the host may begin at once. */
  readonly flushedSoon?: boolean;
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
  /** After a comparison: the first byte of the step that differs, or null. */
  readonly difference?: number | null;
}

/** What a task reads and writes; both executors give one for each file of the batch. */
export interface LaneFile {
  /** Fewer bytes than asked only at the end of the file. */
  read(buffer: Uint8Array, offset: number): Eventually<number>;
  write(buffer: Uint8Array, offset: number): Eventually<void>;
}

const ALL_ZERO: LaneResult = {
  outcome: 'zero',
  bytes: 0,
  zeroRanges: [],
  deflated: false,
  failure: null,
};

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
  const tools = { files, scratch, ciphers: new CipherTable(task.ciphers ?? []) };
  try {
    for (const step of task.steps) {
      if (Atomics.load(task.cancel, 0) !== 0) {
        results.push(CANCELLED);
        continue;
      }
      results.push(await runStep(task, step, tools));
    }
  } finally {
    tools.ciphers.wipe();
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
  readonly ciphers: CipherTable;
}

async function runStep(task: LaneTask, step: LaneStep, tools: Tools): Promise<LaneResult> {
  if (step.target.kind === 'compare') return compareStep(task, step, { ...tools, ...step.target });
  return step.deflate ? deflateStep(task, step, tools) : copyStep(task, step, tools);
}

/** Stops at the first difference. A failure to read `parts` counts as the target's. */
async function compareStep(
  task: LaneTask,
  step: LaneStep,
  tools: Tools & { readonly parts: readonly LanePart[] },
): Promise<LaneResult> {
  const chunk = Math.min(step.length, COPY_LIMITS.compareChunkBytes);
  const both = tools.scratch.take(2 * chunk);
  const first = new Gatherer(task, step.parts, tools);
  const second = new Gatherer(task, tools.parts, tools);
  for (let start = 0; start < step.length; start += chunk) {
    const length = Math.min(chunk, step.length - start);
    const left = both.subarray(0, length);
    const right = both.subarray(chunk, chunk + length);
    try {
      await first.fill(left);
    } catch (error) {
      return failed('source', error);
    }
    try {
      await second.fill(right);
    } catch (error) {
      return failed('target', error);
    }
    if (Buffer.compare(left, right) === 0) continue;
    return { ...ALL_ZERO, outcome: 'written', difference: start + differenceAt(left, right) };
  }
  return { ...ALL_ZERO, outcome: 'written', difference: null };
}

/** The first byte that differs; some byte does. */
function differenceAt(left: Uint8Array, right: Uint8Array): number {
  let at = 0;
  while (left[at] === right[at]) at += 1;
  return at;
}

async function deflateStep(task: LaneTask, step: LaneStep, tools: Tools): Promise<LaneResult> {
  const buffer = tools.scratch.take(step.length);
  try {
    await new Gatherer(task, step.parts, tools).fill(buffer);
  } catch (error) {
    return failed('source', error);
  }
  if (step.zeroGranularity > 0 && isZero(buffer)) return ALL_ZERO;
  await loadCodec(step.codec ?? 'deflate');
  return putDeflated(task, step, buffer);
}

/**
 * In chunks that stay in the processor's cache. Zeroes at the head of a step that does not skip
 * zeroes are held back until something else follows: a step that is all zero writes nothing.
 */
async function copyStep(task: LaneTask, step: LaneStep, tools: Tools): Promise<LaneResult> {
  const { length, zeroGranularity, skipZeroes } = step;
  const chunk = Math.max(COPY_LIMITS.chunkBytes, zeroGranularity);
  const source = new Gatherer(task, step.parts, tools);
  const zeroes: number[] = [];
  let bytes = 0;
  let heldBack = 0;
  for (let start = 0; start < length; start += chunk) {
    const buffer = tools.scratch.take(Math.min(chunk, length - start));
    try {
      await source.fill(buffer);
    } catch (error) {
      return failed('source', error);
    }
    const found = zeroGranularity > 0 ? zeroRanges(buffer, zeroGranularity) : [];
    const allZero = found.length === 2 && found[1] === buffer.length;
    if (allZero && !skipZeroes && heldBack === start) {
      heldBack += buffer.length;
      continue;
    }
    try {
      if (heldBack > 0 && bytes === 0) bytes += await putZeroes(task, step, { heldBack, tools });
      const place = { task, step, tools, start };
      if (!allZero || !skipZeroes) bytes += await put(place, buffer, skipZeroes ? found : []);
    } catch (error) {
      return failed('target', error);
    }
    if (skipZeroes) appendRanges(zeroes, found, start);
  }
  const nothing = heldBack === length || (zeroes[0] === 0 && zeroes[1] === length);
  if (nothing) return ALL_ZERO;
  return { outcome: 'written', bytes, zeroRanges: zeroes, deflated: false, failure: null };
}

/** Reads the parts of a step one stretch after another. */
class Gatherer {
  readonly #task: LaneTask;
  readonly #parts: readonly LanePart[];
  readonly #tools: Tools;
  #part = 0;
  /** Bytes of the present part that were given already. */
  #skip = 0;
  /** The whole cluster of the present part, if that is a compressed one. */
  #inflated: Uint8Array | null = null;

  constructor(task: LaneTask, parts: readonly LanePart[], tools: Tools) {
    this.#task = task;
    this.#parts = parts;
    this.#tools = tools;
  }

  async fill(buffer: Uint8Array): Promise<void> {
    for (let position = 0; position < buffer.length; ) {
      const part = this.#parts[this.#part];
      if (part === undefined) throw new TypeError('the parts of a step are shorter than the step');
      const count = Math.min(part.length - this.#skip, buffer.length - position);
      await this.#give(part, buffer.subarray(position, position + count));
      position += count;
      this.#skip += count;
      if (this.#skip < part.length) continue;
      this.#part += 1;
      this.#skip = 0;
      this.#inflated = null;
    }
  }

  async #give(part: LanePart, piece: Uint8Array): Promise<void> {
    const skip = this.#skip;
    if (part.kind === 'zero') piece.fill(0);
    else if (part.kind === 'slab') {
      piece.set(slabRange(this.#task, part.offset + skip, piece.length));
    } else if (part.kind === 'data' || part.kind === 'unwritten') {
      const { cipher } = part;
      const whole = cipher && this.#tools.ciphers.cover(cipher, piece, skip);
      const read = this.#read(part, whole?.bytes ?? piece, skip - (whole?.head ?? 0));
      if (read instanceof Promise) await read;
      whole?.decrypt();
    } else {
      this.#inflated ??= await inflatePart(part, this.#tools);
      piece.set(this.#inflated.subarray(part.skip + skip, part.skip + skip + piece.length));
    }
  }

  /** What is stored from `skip` bytes into the part on. */
  #read(part: StoredPart, buffer: Uint8Array, skip: number): Eventually<void> {
    if (part.kind === 'unwritten') return void buffer.fill(0);
    return readAll(fileAt(this.#tools, part.file), buffer, part.offset + skip);
  }
}

type StoredPart = Extract<LanePart, { kind: 'data' | 'unwritten' }>;

async function inflatePart(
  part: Extract<LanePart, { kind: 'compressed' }>,
  tools: Tools,
): Promise<Uint8Array> {
  const packed = new Uint8Array(part.compressedLength);
  const { codec = 'deflate' } = part;
  await readAll(fileAt(tools, part.file), packed, part.offset);
  await loadCodec(codec);
  return unpackCluster(codec, packed, part.inflatedLength);
}

/** Bytes past the end of the file read as zeroes. */
function readAll(file: LaneFile, buffer: Uint8Array, offset: number): Eventually<void> {
  return settle(file.read(buffer, offset), (count) => {
    if (count === buffer.length) return undefined;
    if (count === 0) return void buffer.fill(0);
    return readAll(file, buffer.subarray(count), offset + count);
  });
}

function putDeflated(task: LaneTask, step: LaneStep, buffer: Uint8Array): LaneResult {
  if (step.target.kind !== 'slab') throw new TypeError('deflated bytes go to the slab');
  const packed = packCluster(step.codec ?? 'deflate', buffer, step.length - 1);
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

/**
 * Writes what of a chunk is not in `zeroes`; gives the bytes written. What is encrypted is so in
 * the buffer.
 */
async function put(
  place: {
    readonly task: LaneTask;
    readonly step: LaneStep;
    readonly tools: Tools;
    /** Where in the step the chunk begins. */
    readonly start: number;
  },
  buffer: Uint8Array,
  zeroes: readonly number[],
): Promise<number> {
  const { target } = place.step;
  if (target.kind === 'compare') throw new TypeError('a comparison writes nothing');
  let position = 0;
  let bytes = 0;
  for (let index = 0; index <= zeroes.length; index += 2) {
    const end = zeroes[index] ?? buffer.length;
    if (end > position) {
      const piece = buffer.subarray(position, end);
      const offset = target.offset + place.start + position;
      if (target.kind === 'slab') slabRange(place.task, offset, piece.length).set(piece);
      else {
        const { cipher } = target;
        if (cipher !== undefined) {
          place.tools.ciphers.encrypt(cipher, piece, place.start + position);
        }
        const written = fileAt(place.tools, target.file).write(piece, offset);
        if (written instanceof Promise) await written;
      }
      bytes += piece.length;
    }
    position = end + (zeroes[index + 1] ?? 0);
  }
  return bytes;
}

/** Writes the zeroes that were held back at the head of a step. */
async function putZeroes(
  task: LaneTask,
  step: LaneStep,
  head: { readonly heldBack: number; readonly tools: Tools },
): Promise<number> {
  const zeroes = new Uint8Array(Math.min(head.heldBack, COPY_LIMITS.chunkBytes));
  for (let start = 0; start < head.heldBack; start += zeroes.length) {
    const piece = zeroes.subarray(0, Math.min(zeroes.length, head.heldBack - start));
    piece.fill(0);
    await put({ task, step, tools: head.tools, start }, piece, []);
  }
  return head.heldBack;
}

/** Adds the ranges of a chunk that begins at `start`, joining what touches. */
function appendRanges(ranges: number[], found: readonly number[], start: number): void {
  for (let index = 0; index < found.length; index += 2) {
    const offset = start + (found[index] ?? 0);
    const length = found[index + 1] ?? 0;
    const last = ranges.length - 1;
    if (last > 0 && (ranges[last - 1] ?? 0) + (ranges[last] ?? 0) === offset) {
      ranges[last] = (ranges[last] ?? 0) + length;
    } else ranges.push(offset, length);
  }
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
