// SPDX-License-Identifier: Apache-2.0
// `img map`: which layer of the chain decides each range, and where its bytes are stored.
// Ranges are printed as they are found; neighbours that continue each other become one.

import { escapeControls } from '../../base/index.js';
import type { BlockStatus, Node } from '../../block/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { sizeArgument } from './numbers.js';
import { openImage, withSession } from './session.js';
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

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset: number | null;
  readonly file: string | null;
}

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
    const policy = { inspectOnly: true, forceShare: flags.has('share') };
    return withSession(program, async (session) => {
      const node = await openImage(session, { image, readOnly: true, policy });
      const printer = new MapPrinter(program, shape);
      const end = Math.min(node.length, start + max);
      for await (const entry of mergedEntries(node, start, end)) printer.print(entry);
      printer.end();
      return 0;
    });
  },
};

/** At least one entry: of no length when there is nothing at `start`. */
async function* mergedEntries(top: Node, start: number, end: number): AsyncGenerator<MapEntry> {
  let current: MapEntry | null = null;
  for (let offset = start; offset < end; ) {
    const next: MapEntry = await entryAt(top, offset, end - offset);
    if (current !== null && continues(current, next)) {
      current = extended(current, next.length);
    } else {
      if (current !== null) yield current;
      current = next;
    }
    offset += next.length;
  }
  yield current ?? {
    start,
    length: 0,
    depth: 0,
    present: false,
    zero: false,
    data: false,
    offset: null,
    file: null,
  };
}

function extended(entry: MapEntry, length: number): MapEntry {
  return { ...entry, length: entry.length + length };
}

function continues(a: MapEntry, b: MapEntry): boolean {
  const same =
    a.zero === b.zero &&
    a.data === b.data &&
    a.present === b.present &&
    a.depth === b.depth &&
    a.file === b.file &&
    (a.offset === null) === (b.offset === null);
  return same && (a.offset === null || a.offset + a.length === b.offset);
}

async function entryAt(top: Node, offset: number, length: number): Promise<MapEntry> {
  let remaining = length;
  let depth = 0;
  for (let node: Node = storing(top); ; depth += 1) {
    if (offset >= node.length) return entry(offset, { length: remaining, zero: true }, depth);
    const asked = Math.min(remaining, node.length - offset);
    const status: BlockStatus = await node.blockStatus(offset, asked, true);
    remaining = status.length;
    if (status.allocated) return entry(offset, status, depth);
    const { backing } = node;
    // Past the end of its backing file a layer reads as zeroes by itself.
    if (backing === null || offset >= backing.length) {
      return entry(offset, { length: remaining, zero: true }, depth);
    }
    node = storing(backing);
  }
}

function storing(node: Node): Node {
  let at = node;
  while (at.filtered !== null) at = at.filtered;
  return at;
}

function entry(start: number, status: Partial<BlockStatus>, depth: number): MapEntry {
  const offset = status.hostOffset ?? null;
  return {
    start,
    length: status.length ?? 0,
    depth,
    present: status.allocated ?? false,
    zero: status.zero ?? false,
    data: status.data ?? false,
    offset,
    file: offset === null ? null : (status.file?.filename ?? null),
  };
}

class MapPrinter {
  readonly #program: Program;
  readonly #shape: OutputFormat;
  #first = true;

  constructor(program: Program, shape: OutputFormat) {
    this.#program = program;
    this.#shape = shape;
    if (shape === 'human') {
      program.out(`${'Offset'.padEnd(16)}${'Length'.padEnd(16)}${'Mapped to'.padEnd(16)}File\n`);
    }
  }

  print(entry: MapEntry): void {
    if (this.#shape === 'json') {
      this.#program.out(`${this.#first ? '[' : ',\n'}${jsonLine(entry)}`);
      this.#first = false;
      return;
    }
    if (!entry.data) return;
    if (entry.offset === null) {
      throw new CliError('File contains external, encrypted or compressed clusters.');
    }
    if (entry.zero) return;
    const numbers = [entry.start, entry.length, entry.offset].map((each) => hex(each).padEnd(16));
    this.#program.out(`${numbers.join('')}${escapeControls(entry.file ?? '')}\n`);
  }

  end(): void {
    if (this.#shape === 'json') this.#program.out(']\n');
  }
}

/** As the C format %#x: zero has no prefix. */
function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

function jsonLine(entry: MapEntry): string {
  const { start, length, depth, present, zero, data, offset } = entry;
  const place = offset === null ? '' : `, "offset": ${offset}`;
  return (
    `{ "start": ${start}, "length": ${length}, "depth": ${depth}, "present": ${present}, ` +
    `"zero": ${zero}, "data": ${data}${place}}`
  );
}

