// SPDX-License-Identifier: Apache-2.0
// Runs plain batches in the addon: read, look for zeroes and write on a thread of the host's pool,
// without a thread of JavaScript to start and to tell.
//
// Plain: host files on both sides, nothing deflated, encrypted in whole sectors only. The results
// are those of runLaneTask(). The batch is turned into numbers, and so is the answer
// (native/copy.cc has their order).

import { constants } from 'node:os';
import { COPY_LIMITS, errnoText, kindOfErrno, must, secretBytes } from '../../base/index.js';
import {
  canCryptNatively,
  HASH_BYTES,
  nativeWayOf,
  vectorKeyOf,
  vectorNumber,
} from '../../crypto/index.js';
import type { CipherKey, CipherPlace } from '../../crypto/index.js';
import type { NativeAddon } from '../../host/index.js';
import type { LanePart, LaneResult, LaneStep, LaneTask } from './lane-task.js';
import type { LaneMessage } from './lane-worker.js';

const HEAD = 2;
const CIPHER_NUMBERS = 5;
const STEP_HEAD = 7;
const PART_NUMBERS = 5;

/** Outcomes as the addon numbers them. */
const OUTCOMES = ['written', 'zero', 'source', 'target', 'cancelled'] as const;

const errnoNames = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]));

/** Whether the addon can do all of it. */
export function isPlain(task: LaneTask, addon: NativeAddon): boolean {
  const { ciphers = [] } = task;
  const sectorBytes = Math.max(1, ...ciphers.map((cipher) => cipher.sectorBytes));
  return (
    (ciphers.length === 0 || canCryptNatively(addon)) &&
    task.steps.every(
      ({ parts, target, zeroGranularity, skipZeroes, deflate }) =>
        target.kind === 'file' &&
        !deflate &&
        zeroGranularity <= COPY_LIMITS.batchMaxBytes &&
        zeroGranularity % sectorBytes === 0 &&
        (skipZeroes || zeroGranularity === 0) &&
        isWholeSectors(target.cipher, sectorBytes) &&
        parts.every((part) => isPlainPart(part, sectorBytes)),
    )
  );
}

function isPlainPart(part: LanePart, sectorBytes: number): boolean {
  if (part.kind === 'slab' || part.kind === 'compressed') return false;
  const { length } = part;
  return length % sectorBytes === 0 && isWholeSectors(cipherOf(part), sectorBytes);
}

/** Sectors of all ciphers are powers of two. */
function isWholeSectors(cipher: CipherPlace | null | undefined, sectorBytes: number): boolean {
  return (cipher?.offset ?? 0) % sectorBytes === 0;
}

function cipherOf(part: LanePart): CipherPlace | null {
  return part.kind === 'data' || part.kind === 'unwritten' ? (part.cipher ?? null) : null;
}

/** Runs a plain task; the caller holds its descriptors. */
export async function runNatively(
  addon: NativeAddon,
  { task, descriptors }: LaneMessage,
): Promise<LaneResult[]> {
  const { ciphers = [], steps } = task;
  const program = encode(ciphers, steps, descriptors);
  const keys = keysOf(ciphers);
  let answer: Promise<Float64Array>;
  try {
    answer = addon.copyLater(program, task.cancel, task.flushedSoon === true ? 1 : 0, keys);
  } finally {
    keys.fill(0);
  }
  return decode(await answer, steps.length);
}

/** Key and, with essiv, the key of the vectors of each cipher in turn. */
function keysOf(ciphers: readonly CipherKey[]): Uint8Array {
  let size = 0;
  for (const { spec, key } of ciphers) size += key.length + vectorKeyBytes(spec);
  const keys = secretBytes(size);
  let at = 0;
  for (const { spec, key } of ciphers) {
    keys.set(key, at);
    at += key.length;
    if (spec.ivHash === null) continue;
    const vectorKey = vectorKeyOf(spec.ivHash, key);
    keys.set(vectorKey, at);
    at += vectorKey.length;
    vectorKey.fill(0);
  }
  return keys;
}

function vectorKeyBytes({ ivHash }: CipherKey['spec']): number {
  return ivHash === null ? 0 : HASH_BYTES[ivHash];
}

function encode(
  ciphers: readonly CipherKey[],
  steps: readonly LaneStep[],
  descriptors: readonly number[],
): Float64Array {
  let size = HEAD + ciphers.length * CIPHER_NUMBERS;
  for (const { parts } of steps) size += STEP_HEAD + parts.length * PART_NUMBERS;
  const program = new Float64Array(size);
  let at = 0;
  program[at++] = ciphers.length;
  program[at++] = steps.length;
  for (const cipher of ciphers) {
    program[at++] = nativeWayOf(cipher);
    program[at++] = cipher.sectorBytes;
    program[at++] = cipher.key.length;
    program[at++] = vectorKeyBytes(cipher.spec);
    program[at++] = vectorNumber(cipher, 0);
  }
  for (const { parts, length, target, zeroGranularity, hostCopies } of steps) {
    if (target.kind !== 'file') throw new TypeError('the addon writes to files');
    program[at++] = must(descriptors[target.file], 'each file has a descriptor');
    program[at++] = target.offset;
    program[at++] = length;
    program[at++] = hostCopies === true && zeroGranularity === 0 ? -1 : zeroGranularity;
    program[at++] = target.cipher?.index ?? -1;
    program[at++] = target.cipher?.offset ?? 0;
    program[at++] = parts.length;
    for (const part of parts) {
      const isData = part.kind === 'data';
      program[at++] = isData ? must(descriptors[part.file], 'each file has a descriptor') : -1;
      program[at++] = isData ? part.offset : 0;
      program[at++] = part.length;
      const cipher = cipherOf(part);
      program[at++] = cipher?.index ?? -1;
      program[at++] = cipher?.offset ?? 0;
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
