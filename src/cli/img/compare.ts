// SPDX-License-Identifier: Apache-2.0
// `img compare`: 0 the same, 1 different, 2 an image cannot be opened, 3 block status failed,
// 4 a read failed. Ranges that read as zeroes on both sides are never read. Differences are named
// by the 512-byte sector they are in.

import { BlockError, Permission } from '../../base/index.js';
import type { Backend, BlockStatus, Node } from '../../block/index.js';
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
  PROGRESS,
  QUIET,
  readVerbOptions,
  SOURCE_CACHE,
  usageError,
} from './verb.js';
import type { Verb } from './verb.js';
import { sectorOfDifference, sectorOfNonZero } from './sectors.js';

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
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      given.set(name, value);
    });
    const mode = progressMode(given);
    const [first, second] = operands;
    if (first === undefined || second === undefined || operands.length !== 2) {
      throw usageError(program, 'Expecting two image file names');
    }
    const cache = sourceCache(given.get('source-cache') ?? 'writeback', STATUS.open);
    const policy = { ...cache, inspectOnly: true, forceShare: given.has('share') };
    const named = (text: string, format: string | undefined): ImageName => {
      return { text, format: format ?? null, imageOptions: given.has('image-opts') };
    };
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
      const say = (text: string): void => {
        if (!quiet) program.out(`${text}\n`);
      };
      try {
        return await new Comparison({ a, b, progress, say }, given.has('strict')).run();
      } finally {
        progress.end();
        await a.backend.detach();
        await b.backend.detach();
      }
    });
  },
};

async function attachSide(session: Session, node: Node, name: string): Promise<Side> {
  const permissions = { taken: Permission.consistentRead, shared: Permission.all };
  const backend = await session.graph.attach(node, 'compare', permissions);
  return { name, node, backend, buffer: new Uint8Array(CHUNK_BYTES) };
}

interface ComparisonParts {
  readonly a: Side;
  readonly b: Side;
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
    if (this.#strict && a.node.length !== b.node.length) {
      say('Strict mode: Image size mismatch!');
      return STATUS.differ;
    }
    const difference = await this.#compareCommon(common);
    if (difference !== null) {
      say(difference);
      return STATUS.differ;
    }
    if (a.node.length !== b.node.length) {
      say('Warning: Image size mismatch!');
      const longer = a.node.length > b.node.length ? a : b;
      const nonZero = await this.#firstNonZero(longer, common, longer.node.length);
      if (nonZero !== null) {
        say(`Content mismatch at offset ${nonZero}!`);
        return STATUS.differ;
      }
    }
    progress.complete();
    say('Images are identical.');
    return STATUS.same;
  }

  /** The message about the first difference, or null. */
  async #compareCommon(common: number): Promise<string | null> {
    const { a, b, progress } = this.#parts;
    for (let offset = 0; offset < common; ) {
      const left = await statusOf(a, offset, common - offset);
      const right = await statusOf(b, offset, common - offset);
      const length = Math.min(left.length, right.length);
      if (this.#strict && !sameStatus(left, right)) {
        return `Strict mode: Offset ${offset} block status mismatch!`;
      }
      if (!left.zero || !right.zero) {
        const at = await this.#compareRange({ left, right }, offset, length);
        if (at !== null) return `Content mismatch at offset ${at}!`;
      }
      offset += length;
      progress.update(offset);
    }
    return null;
  }

  async #compareRange(
    status: { readonly left: BlockStatus; readonly right: BlockStatus },
    offset: number,
    length: number,
  ): Promise<number | null> {
    const { a, b, progress } = this.#parts;
    if (status.left.zero) return this.#firstNonZero(b, offset, offset + length);
    if (status.right.zero) return this.#firstNonZero(a, offset, offset + length);
    for (let at = offset; at < offset + length; at += CHUNK_BYTES) {
      const bytes = Math.min(CHUNK_BYTES, offset + length - at);
      const left = await readChunk(a, at, bytes);
      const right = await readChunk(b, at, bytes);
      const sector = sectorOfDifference(left, right);
      if (sector !== null) return at + sector;
      progress.update(at + bytes);
    }
    return null;
  }

  async #firstNonZero(side: Side, start: number, end: number): Promise<number | null> {
    for (let at = start; at < end; ) {
      const status = await statusOf(side, at, end - at);
      const bytes = status.zero ? status.length : Math.min(CHUNK_BYTES, status.length);
      if (!status.zero) {
        const sector = sectorOfNonZero(await readChunk(side, at, bytes));
        if (sector !== null) return at + sector;
      }
      at += bytes;
      this.#parts.progress.update(at);
    }
    return null;
  }
}

/** In strict mode: what the reference's flags say of a range. */
function sameStatus(a: BlockStatus, b: BlockStatus): boolean {
  const hasOffset = (status: BlockStatus): boolean => status.hostOffset !== undefined;
  return (
    a.allocated === b.allocated &&
    a.data === b.data &&
    a.zero === b.zero &&
    hasOffset(a) === hasOffset(b)
  );
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
    if (!(error instanceof BlockError)) throw error;
    const text = `Sector allocation test failed for ${side.name}: ${error.message}`;
    throw new CliError(text, STATUS.status);
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
