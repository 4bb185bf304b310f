// SPDX-License-Identifier: Apache-2.0
// `img measure`: how large a new image becomes that has a given size (--size) or the contents of
// another image. Reads block status alone, never data.

import { BlockError, MAX_OFFSET } from '../../base/index.js';
import { bitmapsOf, keepsBitmaps } from '../../block/index.js';
import type { DirtyBitmap, MeasuredSize, MeasureSource, Node } from '../../block/index.js';
import { backingOf, LayerRuns, skipFilters } from '../../block/copy/index.js';
import { driverOptions } from '../../drivers/options-catalog.js';
import { writeJson } from '../../wire/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError, report } from '../program.js';
import type { Program } from '../program.js';
import { withEncryption } from './create/encryption.js';
import { luksMembers } from './create/luks.js';
import { createFormat, OptionMistake, OptionValues } from './create/options.js';
import { sizeArgument } from './numbers.js';
import { openImage, withSession } from './session.js';
import { showSnapshot, snapshotChoice } from './snapshot/view.js';
import type { SnapshotChoice } from './snapshot/view.js';
import type { ImageName, Session } from './session.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  OUTPUT,
  outputFormat,
  readVerbOptions,
  refuseFormatWithOptions,
  requireOptionList,
} from './verb.js';
import type { OutputFormat, Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'output-format', short: 'O', argument: true },
  { name: 'options', short: 'o', argument: true },
  OUTPUT,
  { name: 'size', long: 'size', argument: true },
  { name: 'snapshot', short: 'l', argument: true },
  FORCE_SHARE,
];

interface MeasureArguments {
  readonly image: ImageName | null;
  /** Bytes; null with an image. */
  readonly size: number | null;
  /** The image is read as one of its snapshots. */
  readonly snapshot: SnapshotChoice | null;
  readonly outputFormat: string;
  readonly lists: readonly string[];
  readonly shape: OutputFormat;
  readonly share: boolean;
}

export const measure: Verb = {
  options: OPTIONS.filter(({ unsupported }) => unsupported !== true),
  async run(args, program) {
    const command = parse(args, program);
    return withSession(program, (session) => runMeasure(session, command, program));
  },
};

function parse(args: readonly string[], program: Program): MeasureArguments {
  const given = new Map<string, string>();
  const lists: string[] = [];
  let size: number | null = null;
  let tooLarge: CliError | null = null;
  let shape: OutputFormat = 'human';
  let snapshot: SnapshotChoice | null = null;
  const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
    if (name === 'options') lists.push(requireOptionList(value));
    else if (name === 'size') {
      const found = sizeOrHuge(value);
      if (typeof found === 'number') size = found;
      else tooLarge = found;
    }
    else if (name === 'output') shape = outputFormat(value);
    else if (name === 'snapshot') snapshot = snapshotChoice(value, program);
    else given.set(name, value);
  });
  if (tooLarge !== null) throw hugeError(given, tooLarge);
  const [text] = operands;
  const format = given.get('format') ?? null;
  const imageOptions = given.has('image-opts');
  if (operands.length > 1) throw new CliError('At most one filename argument is allowed.');
  if (text === undefined && (imageOptions || format !== null || snapshot !== null)) {
    throw new CliError('--image-opts, -f, and -l require a filename argument.');
  }
  if (text === undefined && size === null) {
    throw new CliError('Either --size N or one filename must be specified.');
  }
  if (text !== undefined && size !== null) {
    throw new CliError('--size N cannot be used together with a filename.');
  }
  refuseFormatWithOptions({ format, imageOptions });
  return {
    image: text === undefined ? null : { text, format, imageOptions },
    size,
    snapshot,
    outputFormat: given.get('output-format') ?? 'raw',
    lists,
    shape,
    share: given.has('share'),
  };
}

/** What is beyond all numbers here is for the format to refuse. */
function sizeOrHuge(text: string): number | CliError {
  try {
    return sizeArgument('image size', text);
  } catch (error) {
    if (error instanceof CliError && error.message.endsWith(` ${MAX_OFFSET}.`)) return error;
    throw error;
  }
}

function hugeError(given: ReadonlyMap<string, string>, error: CliError): CliError {
  if (given.get('output-format') !== 'qcow2') return error;
  return new CliError('The image size is too large (try using a larger cluster size)');
}

async function runMeasure(
  session: Session,
  command: MeasureArguments,
  program: Program,
): Promise<number> {
  const { image, shape } = command;
  const policy = { forceShare: command.share };
  const node =
    image === null ? null : await openImage(session, { image, readOnly: true, policy });
  if (node !== null && command.snapshot !== null) await showSnapshot(node, command.snapshot);
  const values = targetValues(command, program);
  if (command.size !== null) values.set('size', String(command.size));
  const driver = await session.registry.load(values.format.name);
  if (driver.measure === undefined) {
    const text = `Block driver '${driver.name}' does not support size measurement`;
    throw new CliError(text);
  }
  const source = node === null ? null : sourceOf(node);
  const { secret } = session.graph;
  const measured = await driver.measure(creationMembers(values), source, { secret });
  program.out(shape === 'json' ? jsonOf(measured) : textOf(measured));
  return 0;
}

/** As they are for creating an image; of a file nothing is asked. */
function creationMembers(values: OptionValues): Readonly<Record<string, unknown>> {
  const size = values.size ?? 0;
  const members = values.members();
  if (values.format.name !== 'luks') return { ...withEncryption(members), size };
  const { preallocation: _, ...others } = members;
  return luksMembers(others, { file: '', size });
}

function targetValues(command: MeasureArguments, program: Program): OptionValues {
  const name = command.outputFormat;
  const format = createFormat(name);
  if (format === null) {
    if (!Object.hasOwn(driverOptions, name)) throw new CliError(`Unknown file format '${name}'`);
    throw new CliError(`Format driver '${name}' does not support image creation`);
  }
  const values = new OptionValues(format);
  try {
    for (const list of command.lists) values.parse(list);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    report(program, error.message, error instanceof OptionMistake ? error.lines : '');
    throw new CliError(`Invalid options for file format '${name}'`);
  }
  return values;
}

/** What the image reads as, layer by layer; pieces alike that follow each other are one. */
function sourceOf(top: Node): MeasureSource {
  const layers: LayerRuns[] = [];
  for (let node: Node | null = top; node !== null; node = backingOf(node)) {
    layers.push(new LayerRuns(skipFilters(node)));
  }
  return {
    length: top.length,
    bitmaps: persistentOf(top),
    async next(offset) {
      let data: boolean | null = null;
      let at = offset;
      while (at < top.length) {
        let remaining = top.length - at;
        let isData = false;
        for (const layer of layers) {
          if (at >= layer.node.length) break;
          remaining = Math.min(remaining, layer.node.length - at);
          const found = layer.find(at);
          if (found instanceof Promise) await found;
          remaining = Math.min(remaining, layer.lengthFrom(at));
          isData = layer.isAllocated && layer.isData;
          if (layer.isAllocated) break;
        }
        if (data !== null && isData !== data) break;
        data = isData;
        at += remaining;
      }
      return { data: data === true, length: at - offset };
    },
  };
}

/** Null: the format of the image has none. */
function persistentOf(top: Node): DirtyBitmap[] | null {
  const image = skipFilters(top);
  return keepsBitmaps(image) ? bitmapsOf(image).filter(({ persistent }) => persistent) : null;
}

function textOf({ required, fullyAllocated, bitmaps }: MeasuredSize): string {
  const sizes = `required size: ${required}\nfully allocated size: ${fullyAllocated}\n`;
  return bitmaps === undefined ? sizes : `${sizes}bitmaps size: ${bitmaps}\n`;
}

function jsonOf({ required, fullyAllocated, bitmaps }: MeasuredSize): string {
  const members = {
    ...(bitmaps !== undefined && { bitmaps }),
    required,
    'fully-allocated': fullyAllocated,
  };
  return `${writeJson(members, { pretty: true })}\n`;
}
