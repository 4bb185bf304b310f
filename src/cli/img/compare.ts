// SPDX-License-Identifier: Apache-2.0
// `img compare`: 0 the same, 1 different, 2 an image cannot be opened, 3 block status failed,
// 4 a read failed. Long ranges that read as zeroes on both sides are never read; the rest is
// compared in lanes, and the first difference in guest order is named, by its 512-byte sector.

import { assert, BlockError, COPY_LIMITS, Permission } from '../../base/index.js';
import { StatusFlag } from '../../block/index.js';
import type { Backend, BlockStatus, Node } from '../../block/index.js';
import { createLanes, ViewComparer, ViewRuns } from '../../block/copy/index.js';
import type { CompareOutcome, LaneExecutor, Span } from '../../block/copy/index.js';
import { writeJson } from '../../wire/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import { Progress, progressMode } from './progress.js';
import { openImage, sourceCache, withSession } from './session.js';
import type { ImageName, Session } from './session.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  OUTPUT,
  outputFormat,
  PROGRESS,
  QUIET,
  readVerbOptions,
  refuseFormatWithOptions,
  SOURCE_CACHE,
  usageError,
} from './verb.js';
import type { Verb } from './verb.js';
import { SECTOR_BYTES, sectorOfDifference } from './sectors.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'second-format', short: 'F', argument: true },
  SOURCE_CACHE,
  ...PROGRESS,
  QUIET,
  { name: 'strict', short: 's' },
  FORCE_SHARE,
  OUTPUT,
];

const STATUS = { same: 0, differ: 1, open: 2, status: 3, read: 4 } as const;
const CHUNK_BYTES = 2 * 1024 * 1024;

interface Side {
  readonly name: string;
  readonly node: Node;
  readonly backend: Backend;
  readonly buffer: Uint8Array;
}

export const compare: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const given = new Map<string, string>();
    const input = { args, specs: OPTIONS, objectStatus: STATUS.open };
    const operands = readVerbOptions(program, input, (name, value) => {
      given.set(name, value);
    });
    const mode = progressMode(given);
    const isJson = outputFormat(given.get('output') ?? 'human') === 'json';
    const [first, second] = operands;
    if (first === undefined || second === undefined || operands.length !== 2) {
      throw usageError(program, 'Expecting two image file names');
    }
    const cache = sourceCache(given.get('source-cache') ?? 'writeback', STATUS.open);
    const policy = { ...cache, forceShare: given.has('share') };
    const named = (text: string, format: string | undefined): ImageName => {
      return { text, format: format ?? null, imageOptions: given.has('image-opts') };
    };
    const formats = [given.get('format'), given.get('second-format')];
    refuseFormatWithOptions({
      format: formats.find((each) => each !== undefined) ?? null,
      imageOptions: given.has('image-opts'),
      status: STATUS.open,
    });
    return withSession(program, async (session) => {
      const open = async (image: ImageName): Promise<Side> => {
        const request = { image, readOnly: true, policy, failureStatus: STATUS.open };
        return attachSide(session, await openImage(session, request), image.text);
      };
      const a = await open(named(first, given.get('format')));
      const b = await open(named(second, given.get('second-format')));
      const quiet = given.has('quiet');
      const total = Math.max(a.node.length, b.node.length);
      const progress = new Progress(program, quiet ? 'none' : mode, total);
      const messages: string[] = [];
      const say = (text: string): void => {
        messages.push(text);
        if (!quiet && !isJson) program.out(`${text}\n`);
      };
      const lanes = createLanes(session.host);
      try {
        const parts = { a, b, lanes, progress, say };
        const status = await new Comparison(parts, given.has('strict')).run();
        if (isJson && !quiet) program.out(answerJson(status, messages));
        return status;
      } finally {
        progress.end();
        await lanes.close();
        await a.backend.detach();
        await b.backend.detach();
      }
    });
  },
};

/** The messages as they are printed to people, and the offset that the last of them names. */
function answerJson(status: number, messages: readonly string[]): string {
  const offset = /[Oo]ffset (\d+)/.exec(messages.at(-1) ?? '')?.[1];
  const answer = {
    identical: status === STATUS.same,
    ...(offset !== undefined && { offset: Number(offset) }),
    messages,
  };
  return `${writeJson(answer, { pretty: true })}\n`;
}

async function attachSide(session: Session, node: Node, name: string): Promise<Side> {
  const permissions = { taken: Permission.consistentRead, shared: Permission.all };
  const backend = await session.graph.attach(node, 'compare', permissions);
  return { name, node, backend, buffer: new Uint8Array(CHUNK_BYTES) };
}

interface ComparisonParts {
  readonly a: Side;
  readonly b: Side;
  readonly lanes: LaneExecutor;
  readonly progress: Progress;
  readonly say: (text: string) => void;
}

class Comparison {
  readonly #parts: ComparisonParts;
  readonly #strict: boolean;

  constructor(parts: ComparisonParts, strict: boolean) {
    this.#parts = parts;
    this.#strict = strict;
  }

  async run(): Promise<number> {
    const { a, b, progress, say } = this.#parts;
    const common = Math.min(a.node.length, b.node.length);
    const total = Math.max(a.node.length, b.node.length);
    if (this.#strict && a.node.length !== b.node.length) {
      say('Strict mode: Image size mismatch!');
      return STATUS.differ;
    }
    const difference = await this.#compareRange(0, common);
    if (difference !== null) {
      say(difference);
      return STATUS.differ;
    }
    if (a.node.length !== b.node.length) {
      say('Warning: Image size mismatch!');
      const rest = await this.#compareRange(common, total);
      if (rest !== null) {
        say(rest);
        return STATUS.differ;
      }
    }
    progress.complete();
    say('Images are identical.');
    return STATUS.same;
  }

  /** The message about the first difference, or null. Nothing is in flight afterwards. */
  async #compareRange(start: number, end: number): Promise<string | null> {
    const { a, b } = this.#parts;
    const queue = new CompareQueue(this.#parts);
    const sides = [new ViewRuns(a.node, this.#strict), new ViewRuns(b.node, this.#strict)] as const;
    const [left, right] = sides;
    try {
      for (let offset = start; offset < end; ) {
        const found = this.#find(sides, offset);
        if (found !== undefined) {
          // A difference that was found before wins over a failure.
          const failure = await found;
          if (failure !== null) return (await queue.finish()) ?? raise(failure);
        }
        const length = Math.min(end - offset, left.lengthFrom(offset), right.lengthFrom(offset));
        if (this.#strict && !isSameStatus(left, right)) {
          const earlier = await queue.finish();
          return earlier ?? `Strict mode: Offset ${offset} block status mismatch!`;
        }
        assert(length > 0, `a status at ${offset} of ${a.name} and ${b.name} holds somewhere`);
        queue.add(offset, length, left.isZero && right.isZero);
        offset += length;
        const difference = queue.isFull ? await queue.next() : null;
        if (difference !== null) return difference;
      }
      return await queue.finish();
    } finally {
      await queue.stop();
    }
  }

  /** Both at the run of `offset`; wait for a promise, which gives the failure if there was one. */
  #find(
    [left, right]: readonly [ViewRuns, ViewRuns],
    offset: number,
  ): Promise<CliError | null> | undefined {
    const { a, b } = this.#parts;
    const first = findRun(left, a, offset);
    if (first !== undefined) {
      return first.then((failure) => failure ?? this.#find([left, right], offset) ?? null);
    }
    return findRun(right, b, offset);
  }
}

function findRun(
  runs: ViewRuns,
  { name }: Side,
  offset: number,
): Promise<CliError | null> | undefined {
  try {
    const found = runs.find(offset);
    if (found === undefined) return undefined;
    return found.then(
      () => null,
      (error: unknown) => statusFailure(name, error),
    );
  } catch (error) {
    return Promise.resolve(statusFailure(name, error));
  }
}

function statusFailure(name: string, error: unknown): CliError {
  if (!(error instanceof BlockError)) throw error;
  const text = `Sector allocation test failed for ${name}: ${error.message}`;
  return new CliError(text, STATUS.status);
}

function raise(failure: CliError): never {
  throw failure;
}

/**
 * Ranges in guest order, compared in whole batches however short they are, several at once; their
 * answers are taken in the same order. Zeroes too short to be left out go along.
 */
class CompareQueue {
  readonly #parts: ComparisonParts;
  readonly #comparer: ViewComparer;
  readonly #running: {
    readonly spans: readonly Span[];
    readonly outcomes: Promise<readonly CompareOutcome[]>;
  }[] = [];
  /** Ranges that wait; the last of them may grow. */
  #waiting: { offset: number; length: number }[] = [];
  #waitingBytes = 0;

  constructor(parts: ComparisonParts) {
    this.#parts = parts;
    this.#comparer = new ViewComparer(parts.lanes, parts.a, parts.b);
  }

  get isFull(): boolean {
    return this.#running.length >= this.#parts.lanes.width * 2;
  }

  /** What follows on the range added last. */
  add(offset: number, length: number, zero: boolean): void {
    if (zero) return;
    const last = this.#waiting.at(-1);
    const gap = last === undefined ? Infinity : offset - last.offset - last.length;
    if (last === undefined || gap >= COPY_LIMITS.batchMinBytes) {
      this.#waiting.push({ offset, length });
      this.#waitingBytes += length;
    } else {
      last.length += gap + length;
      this.#waitingBytes += gap + length;
    }
    while (!this.isFull && this.#isDue) this.#begin();
  }

  get #isDue(): boolean {
    const { batchBytes, batchRuns } = COPY_LIMITS;
    return this.#waitingBytes >= batchBytes || this.#waiting.length > batchRuns;
  }

  /** Begins a batch of what waits. */
  #begin(): void {
    const spans: Span[] = [];
    let left: number = COPY_LIMITS.batchBytes;
    for (const span of this.#waiting) {
      if (left === 0 || spans.length === COPY_LIMITS.batchRuns) break;
      const length = Math.min(left, span.length);
      spans.push({ offset: span.offset, length });
      span.offset += length;
      span.length -= length;
      left -= length;
    }
    this.#waiting = this.#waiting.filter(({ length }) => length > 0);
    this.#waitingBytes -= COPY_LIMITS.batchBytes - left;
    const outcomes = this.#comparer.compare(spans);
    // They are taken in their turn, or not at all.
    outcomes.catch(() => undefined);
    this.#running.push({ spans, outcomes });
  }

  /** The message of the earliest batch in flight, or null. */
  async next(): Promise<string | null> {
    const earliest = this.#running.shift();
    if (earliest === undefined) return null;
    const outcomes = await earliest.outcomes.catch(() => null);
    for (const [index, { offset, length }] of earliest.spans.entries()) {
      let found = outcomes?.[index] ?? 'unknown';
      if (found === 'unknown') found = await readAndCompare(this.#parts, offset, length);
      if (typeof found === 'number') {
        return `Content mismatch at offset ${found - (found % SECTOR_BYTES)}!`;
      }
      this.#parts.progress.update(offset + length);
    }
    return null;
  }

  /** The first difference in all that was added, or null. */
  async finish(): Promise<string | null> {
    for (;;) {
      while (!this.isFull && this.#waitingBytes > 0) this.#begin();
      if (this.#running.length === 0) return null;
      const difference = await this.next();
      if (difference !== null) return difference;
    }
  }

  /** Gives up what is in flight and waits for it. */
  async stop(): Promise<void> {
    this.#comparer.cancel();
    await Promise.allSettled(this.#running.map(({ outcomes }) => outcomes));
  }
}

/** Through the nodes; throws the error that names the side and the offset. */
async function readAndCompare(
  { a, b }: ComparisonParts,
  offset: number,
  length: number,
): Promise<CompareOutcome> {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const left = await statusOf(a, at, Math.min(CHUNK_BYTES, end - at));
    const right = await statusOf(b, at, left.length);
    const bytes = right.length;
    if (!left.zero || !right.zero) {
      const one = left.zero ? zeroes(a, bytes) : await readChunk(a, at, bytes);
      const other = right.zero ? zeroes(b, bytes) : await readChunk(b, at, bytes);
      const sector = sectorOfDifference(one, other);
      if (sector !== null) return at + sector;
    }
    at += bytes;
  }
  return 'same';
}

function zeroes(side: Side, length: number): Uint8Array {
  return side.buffer.subarray(0, length).fill(0);
}

/** In strict mode: what the reference's flags say of a range. */
function isSameStatus(a: ViewRuns, b: ViewRuns): boolean {
  const { allocated, data, zero } = StatusFlag;
  const differing = (a.flags ^ b.flags) & (allocated | data | zero);
  return differing === 0 && a.isStored === b.isStored;
}

/** Of the whole chain; beyond the last layer a range is not allocated and zero. */
async function statusOf(side: Side, offset: number, length: number): Promise<BlockStatus> {
  let remaining = length;
  try {
    for (let node: Node | null = side.node; node !== null; node = node.backing) {
      while (node.filtered !== null) node = node.filtered;
      if (offset >= node.length) break;
      const asked: number = Math.min(remaining, node.length - offset);
      const status: BlockStatus = await node.blockStatus(offset, asked, true);
      if (status.allocated) return status;
      remaining = status.length;
    }
  } catch (error) {
    throw statusFailure(side.name, error);
  }
  return { length: remaining, allocated: false, data: false, zero: true, compressed: false };
}

async function readChunk(side: Side, offset: number, length: number): Promise<Uint8Array> {
  const chunk = side.buffer.subarray(0, length);
  try {
    await side.backend.read(offset, chunk);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const text = `Error while reading offset ${offset} of ${side.name}: ${error.message}`;
    throw new CliError(text, STATUS.read);
  }
  return chunk;
}
