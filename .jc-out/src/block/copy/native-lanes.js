// SPDX-License-Identifier: Apache-2.0
// Runs plain batches in the addon: read, look for zeroes and write on a thread of the host's pool,
// without a thread of JavaScript to start and to tell.
//
// Plain: host files on both sides, nothing deflated. The results are those of runLaneTask(). The
// batch is turned into numbers, and so is the answer (native/copy.cc has their order).
import { constants } from 'node:os';
import { COPY_LIMITS, errnoText, kindOfErrno, must } from '../../base/index.js';
const STEP_HEAD = 5;
const PART_NUMBERS = 3;
/** Outcomes as the addon numbers them. */
const OUTCOMES = ['written', 'zero', 'source', 'target', 'cancelled'];
const errnoNames = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]));
/** Whether the addon can do all of it. */
export function isPlain(task) {
    return task.steps.every(({ parts, target, zeroGranularity, skipZeroes, deflate }) => target.kind === 'file' &&
        !deflate &&
        zeroGranularity <= COPY_LIMITS.batchMaxBytes &&
        (skipZeroes || zeroGranularity === 0) &&
        parts.every(isPlainPart));
}
function isPlainPart(part) {
    return part.kind === 'data' || part.kind === 'zero';
}
/** Runs a plain task; the caller holds its descriptors. */
export async function runNatively(addon, { task, descriptors }) {
    const answer = await addon.copyLater(encode(task.steps, descriptors), task.cancel);
    return decode(answer, task.steps.length);
}
function encode(steps, descriptors) {
    let size = 1;
    for (const { parts } of steps)
        size += STEP_HEAD + parts.length * PART_NUMBERS;
    const program = new Float64Array(size);
    let at = 0;
    program[at++] = steps.length;
    for (const { parts, length, target, zeroGranularity, hostCopies } of steps) {
        if (target.kind !== 'file')
            throw new TypeError('the addon writes to files');
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
function decode(answer, count) {
    const results = [];
    let at = 0;
    const next = () => must(answer[at++], 'the answer is whole');
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
function resultOf(outcome, found) {
    const { bytes, zeroRanges } = found;
    if (outcome === 'written') {
        return { outcome, bytes, zeroRanges, deflated: false, failure: null };
    }
    const nothing = { bytes: 0, zeroRanges: [], deflated: false };
    if (outcome === 'zero' || outcome === 'cancelled')
        return { outcome, ...nothing, failure: null };
    const errno = errnoNames.get(found.errno) ?? 'EIO';
    const failure = { side: outcome, kind: kindOfErrno(errno), errno, message: errnoText(errno) };
    return { outcome: 'error', ...nothing, failure };
}
