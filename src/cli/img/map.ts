// SPDX-License-Identifier: Apache-2.0
// `img map`: which layer of the chain decides each range, and where its bytes are stored.
// Statuses come in batches and ranges are printed as blocks of bytes: no object for each entry.
// Neighbours that continue each other become one.

import { escapeControls, must } from '../../base/index.js';
import { fillStatusRuns, NOT_STORED, StatusFlag, StatusRuns } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { sizeArgument } from './numbers.js';
import { openImage, withSession } from './session.js';
import { ByteLines, lineText } from './status/index.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  OUTPUT,
  outputFormat,
  readVerbOptions,
} from './verb.js';
import type { OutputFormat, Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'start', short: 's', long: 'start-offset', argument: true },
  { name: 'max', short: 'l', long: 'max-length', argument: true },
  OUTPUT,
  FORCE_SHARE,
];

export const map: Verb = {
  options: OPTIONS,
  async run(args, program) {
    let format: string | null = null;
    let output = 'human';
    let start = 0;
    let max = Infinity;
    const flags = new Set<string>();
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (name === 'format') format = value;
      else if (name === 'output') output = value;
      else if (name === 'start') start = sizeArgument('start offset', value);
      else if (name === 'max') max = sizeArgument('max length', value);
      else flags.add(name);
    });
    const image = oneImage(program, operands, { format, imageOptions: flags.has('image-opts') });
    const shape = outputFormat(output);
    const policy = { forceShare: flags.has('share') };
    return withSession(program, async (session) => {
      const node = await openImage(session, { image, readOnly: true, policy });
      const printer = new MapPrinter(program, shape);
      const end = Math.min(node.length, start + max);
      try {
        await new Walk(printer).image(node, { start, end });
        printer.end();
      } finally {
        printer.flush();
      }
      return 0;
    });
  },
};

/** What is said of a range. */
interface Piece {
  /** Bytes. */
  length: number;
  /** Layers above. */
  depth: number;
  /** Bits of StatusFlag. */
  flags: number;
  /** Offset in `file`, or NOT_STORED. */
  stored: number;
  file: string;
}

const NOTHING: Readonly<Piece> = { length: 0, depth: 0, flags: 0, stored: NOT_STORED, file: '' };

/** What is known of the ranges of one layer while they are walked over. */
interface Layer {
  readonly node: Node;
  readonly runs: StatusRuns;
}

/** Says every range of the image, layer by layer, in the order of their offsets. */
class Walk {
  readonly #printer: MapPrinter;
  readonly #layers: Layer[] = [];
  /** Filled again for each run. */
  readonly #piece: Piece = { ...NOTHING };

  constructor(printer: MapPrinter) {
    this.#printer = printer;
  }

  async image(top: Node, range: Range): Promise<void> {
    const start = Math.max(range.start, Math.min(range.end, storing(top).length));
    await this.#layer(top, 0, range);
    if (start < range.end) {
      this.#printer.add(start, { ...NOTHING, length: range.end - start, flags: StatusFlag.zero });
    }
    if (range.start >= range.end) this.#printer.add(range.start, NOTHING);
  }

  /** What `top`, or a layer below it, says of the range, which is within it. */
  async #layer(top: Node, depth: number, { start, end }: Range): Promise<void> {
    const { node, runs } = (this.#layers[depth] ??= newLayer(top));
    const { backing } = node;
    const covered = backing === null ? 0 : backing.length;
    const last = Math.min(end, node.length);
    for (let offset = start; offset < last; ) {
      const filled = fillStatusRuns(node, { offset, length: last - offset }, runs);
      if (filled instanceof Promise) await filled;
      // Who reads slowly is not written to faster: an image may have millions of ranges.
      const unread = this.#printer.drained();
      if (unread !== undefined) await unread;
      const file = runs.file?.filename ?? '';
      for (let index = 0; index < runs.count; index += 1) {
        const length = must(runs.lengths[index], 'length of a run');
        const flags = must(runs.flags[index], 'flags of a run');
        const stored = must(runs.hostOffsets[index], 'place of a run');
        const isDecided = (flags & StatusFlag.allocated) !== 0;
        if (isDecided || offset >= covered || backing === null) {
          // Past the end of its backing file a layer reads as zeroes by itself.
          const piece = this.#piece;
          piece.length = length;
          piece.depth = depth;
          piece.flags = isDecided ? flags : StatusFlag.zero;
          piece.stored = stored;
          piece.file = file;
          this.#printer.add(offset, piece);
          offset += length;
          continue;
        }
        const behind = { start: offset, end: Math.min(offset + length, covered) };
        await this.#layer(backing, depth + 1, behind);
        offset = behind.end;
        if (length > behind.end - behind.start) break;
      }
    }
  }
}

function newLayer(top: Node): Layer {
  return { node: storing(top), runs: new StatusRuns({ exact: true, placed: true }) };
}

interface Range {
  readonly start: number;
  readonly end: number;
}

function storing(node: Node): Node {
  let at = node;
  while (at.filtered !== null) at = at.filtered;
  return at;
}

const SHOWN = StatusFlag.allocated | StatusFlag.data | StatusFlag.zero;

/** Beside the bits of SHOWN. */
const STORED = 8;

const FIRST = lineText('[{ "start": ');
const NEXT = lineText(',\n{ "start": ');
const NO_TEXT = lineText('');
const CLOSE = lineText('}');
const END = lineText(']\n');

/** Joins what goes on from piece to piece, and prints the rest. */
class MapPrinter {
  readonly #lines: ByteLines;
  readonly #shape: OutputFormat;
  readonly #drained: Program['drained'];
  #first = true;
  #start = 0;
  /** What is not printed yet. */
  readonly #last: Piece = { ...NOTHING };
  #hasLast = false;
  /** Text from the length to the end or to the offset, and what it was made of. */
  #middle = NO_TEXT;
  #middleLength = 0;
  #middleFacts = -1;

  constructor(program: Program, shape: OutputFormat) {
    this.#lines = new ByteLines(program);
    this.#drained = program.drained?.bind(program);
    this.#shape = shape;
    if (shape === 'human') {
      const columns = ['Offset', 'Length', 'Mapped to'].map((name) => name.padEnd(16));
      this.#lines.text(lineText(`${columns.join('')}File\n`));
    }
  }

  /** What is printed is read, or a promise of it. */
  drained(): Promise<void> | undefined {
    return this.#drained?.();
  }

  add(start: number, piece: Readonly<Piece>): void {
    const last = this.#last;
    if (this.#hasLast) {
      if (isNext(last, piece)) {
        last.length += piece.length;
        return;
      }
      this.#print(last);
    }
    this.#hasLast = true;
    this.#start = start;
    last.length = piece.length;
    last.depth = piece.depth;
    last.flags = piece.flags;
    last.stored = piece.stored;
    last.file = piece.file;
  }

  end(): void {
    if (this.#hasLast) this.#print(this.#last);
    if (this.#shape === 'json') this.#lines.text(END);
  }

  /** Writes what is held back; call it however the verb ends. */
  flush(): void {
    this.#lines.flush();
  }

  #print(piece: Piece): void {
    if (this.#shape === 'json') this.#printJson(piece);
    else this.#printLine(piece);
  }

  #printJson({ length, depth, flags, stored }: Piece): void {
    const lines = this.#lines;
    const isStored = stored !== NOT_STORED;
    const facts = depth * 16 + (flags & SHOWN) + (isStored ? STORED : 0);
    // Mostly that of the line before.
    if (facts !== this.#middleFacts || length !== this.#middleLength) {
      this.#middle = lineText(middleOf({ length, depth, flags, isStored }));
      this.#middleFacts = facts;
      this.#middleLength = length;
    }
    lines.text(this.#first ? FIRST : NEXT);
    this.#first = false;
    lines.number(this.#start);
    lines.text(this.#middle);
    if (!isStored) return;
    lines.number(stored);
    lines.text(CLOSE);
  }

  #printLine({ length, flags, stored, file }: Piece): void {
    if ((flags & StatusFlag.data) === 0) return;
    if (stored === NOT_STORED) {
      throw new CliError('File contains external, encrypted or compressed clusters.');
    }
    if ((flags & StatusFlag.zero) !== 0) return;
    const numbers = [this.#start, length, stored].map((each) => hex(each).padEnd(16));
    this.#lines.text(lineText(`${numbers.join('')}${escapeControls(file)}\n`));
  }
}

/** As the C format %#x: zero has no prefix. */
function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

function isNext(last: Readonly<Piece>, piece: Readonly<Piece>): boolean {
  if (((last.flags ^ piece.flags) & SHOWN) !== 0 || last.depth !== piece.depth) return false;
  if (last.stored === NOT_STORED) return piece.stored === NOT_STORED;
  return last.stored + last.length === piece.stored && last.file === piece.file;
}

function middleOf(
  { length, depth, flags, isStored }: Pick<Piece, 'length' | 'depth' | 'flags'> & {
    readonly isStored: boolean;
  },
): string {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  return (
    `, "length": ${length}, "depth": ${depth}, "present": ${has(StatusFlag.allocated)}, ` +
    `"zero": ${has(StatusFlag.zero)}, "data": ${has(StatusFlag.data)}` +
    (isStored ? ', "offset": ' : '}')
  );
}
