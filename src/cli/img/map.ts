// SPDX-License-Identifier: Apache-2.0
// `img map`: which layer of the chain decides each range, and where its bytes are stored.
// Ranges are printed in blocks of text; neighbours that continue each other become one.

import { escapeControls, settle } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
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
    const policy = { forceShare: flags.has('share') };
    return withSession(program, async (session) => {
      const node = await openImage(session, { image, readOnly: true, policy });
      const printer = new MapPrinter(program, shape);
      const end = Math.min(node.length, start + max);
      try {
        await forEachEntry(node, { start, end }, (entry) => printer.print(entry));
        printer.end();
      } finally {
        printer.flush();
      }
      return 0;
    });
  },
};

/** At least one entry: of no length when there is nothing at `start`. */
async function forEachEntry(
  top: Node,
  { start, end }: { readonly start: number; readonly end: number },
  print: (entry: MapEntry) => void,
): Promise<void> {
  let current: MapEntry | null = null;
  for (let offset = start; offset < end; ) {
    const found: Eventually<MapEntry> = entryAt(top, { offset, length: end - offset, depth: 0 });
    const next: MapEntry = found instanceof Promise ? await found : found;
    if (current !== null && continues(current, next)) {
      current = extended(current, next.length);
    } else {
      if (current !== null) print(current);
      current = next;
    }
    offset += next.length;
  }
  print(current ?? entry(start, { length: 0 }, 0));
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

interface Place {
  readonly offset: number;
  readonly length: number;
  /** Layers above. */
  readonly depth: number;
}

/** What the layer at `top`, or one below it, says of the place. */
function entryAt(top: Node, place: Place): Eventually<MapEntry> {
  const node = storing(top);
  const { offset, depth } = place;
  if (offset >= node.length) return entry(offset, { length: place.length, zero: true }, depth);
  const asked = Math.min(place.length, node.length - offset);
  return settle(node.blockStatus(offset, asked, true), (status) => {
    if (status.allocated) return entry(offset, status, depth);
    const { length } = status;
    const { backing } = node;
    // Past the end of its backing file a layer reads as zeroes by itself.
    if (backing === null || offset >= backing.length) {
      return entry(offset, { ...status, zero: true, data: false }, depth);
    }
    return entryAt(backing, { offset, length, depth: depth + 1 });
  });
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

/** Written at once: a call for each line costs more than finding it. */
const OUTPUT_CHARACTERS = 65_536;

class MapPrinter {
  readonly #program: Program;
  readonly #shape: OutputFormat;
  #first = true;
  #text = '';

  constructor(program: Program, shape: OutputFormat) {
    this.#program = program;
    this.#shape = shape;
    if (shape === 'human') {
      this.#out(`${'Offset'.padEnd(16)}${'Length'.padEnd(16)}${'Mapped to'.padEnd(16)}File\n`);
    }
  }

  print(entry: MapEntry): void {
    if (this.#shape === 'json') {
      this.#out(`${this.#first ? '[' : ',\n'}${jsonLine(entry)}`);
      this.#first = false;
      return;
    }
    if (!entry.data) return;
    if (entry.offset === null) {
      throw new CliError('File contains external, encrypted or compressed clusters.');
    }
    if (entry.zero) return;
    const numbers = [entry.start, entry.length, entry.offset].map((each) => hex(each).padEnd(16));
    this.#out(`${numbers.join('')}${escapeControls(entry.file ?? '')}\n`);
  }

  /** Writes what is held back; call it however the verb ends. */
  flush(): void {
    if (this.#text !== '') this.#program.out(this.#text);
    this.#text = '';
  }

  #out(text: string): void {
    this.#text += text;
    if (this.#text.length >= OUTPUT_CHARACTERS) this.flush();
  }

  end(): void {
    if (this.#shape === 'json') this.#out(']\n');
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

