// SPDX-License-Identifier: Apache-2.0
// `img dd`: copies blocks of one image into a new one. `count` counts from the start of the input,
// `skip` included, as in the reference. Everything is written as data.

import { BlockError, Permission } from '../../base/index.js';
import { driverOptions } from '../../drivers/options-catalog.js';
import type { OptionSpec } from '../getopt.js';
import { CliError, report } from '../program.js';
import type { Program } from '../program.js';
import { createImage, creationError } from './create/image.js';
import { createFormat, OptionValues } from './create/options.js';
import type { CreateFormat } from './create/options.js';
import { sizeArgument } from './numbers.js';
import { attachUser, openImage, withSession } from './session.js';
import type { Session } from './session.js';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, readVerbOptions } from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'output-format', short: 'O', argument: true },
  FORCE_SHARE,
];

const MAX_BLOCK = 2_147_483_647;
const DEFAULT_BLOCK = 512;
/** Small blocks are copied together, large ones in parts; the bytes are the same. */
const STEP_BYTES = 2 * 1024 * 1024;

interface DdArguments {
  readonly input: string;
  readonly output: string;
  readonly blockSize: number;
  /** Blocks; null: to the end. */
  readonly count: number | null;
  readonly skip: number;
  readonly format: string | null;
  readonly imageOptions: boolean;
  readonly outputFormat: string;
  readonly share: boolean;
}

export const dd: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const command = parse(args, program);
    return withSession(program, (session) => runDd(session, command, program));
  },
};

function parse(args: readonly string[], program: Program): DdArguments {
  const given = new Map<string, string>();
  const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
    given.set(name, value);
  });
  let input: string | null = null;
  let output: string | null = null;
  let blockSize = DEFAULT_BLOCK;
  let count: number | null = null;
  let skip = 0;
  for (const operand of operands) {
    const equals = operand.indexOf('=');
    const name = equals < 0 ? operand : operand.slice(0, equals);
    const value = equals < 0 ? '' : operand.slice(equals + 1);
    if (equals < 0) throw new CliError(`unrecognized operand ${name}`);
    if (name === 'if') input = value;
    else if (name === 'of') output = value;
    else if (name === 'bs') blockSize = sizeArgument('bs', value, { least: 1, most: MAX_BLOCK });
    else if (name === 'count') count = sizeArgument('count', value);
    else if (name === 'skip') skip = sizeArgument('skip', value);
    else throw new CliError(`unrecognized operand ${name}`);
  }
  if (input === null || output === null) {
    throw new CliError('Must specify both input and output files');
  }
  const format = given.get('format') ?? null;
  const imageOptions = given.has('image-opts');
  if (imageOptions && format !== null) {
    throw new CliError('--image-opts and --format are mutually exclusive');
  }
  return {
    input,
    output,
    blockSize,
    count,
    skip,
    format,
    imageOptions,
    outputFormat: given.get('output-format') ?? 'raw',
    share: given.has('share'),
  };
}

async function runDd(session: Session, command: DdArguments, program: Program): Promise<number> {
  const { input, output, blockSize, count, skip } = command;
  const { format, imageOptions } = command;
  const source = await openImage(session, {
    image: { text: input, format, imageOptions },
    readOnly: true,
    policy: { forceShare: command.share },
  });
  const taken = Permission.consistentRead;
  const reader = await attachUser(session, { node: source, name: input, taken });
  const outputFormat = requireFormat(command.outputFormat);
  const end = Math.min(source.length, count === null ? source.length : count * blockSize);
  const start = skip * blockSize;
  const values = new OptionValues(outputFormat);
  const size = Math.max(0, end - start);
  values.set('size', String(size));
  try {
    await createImage(session, { path: output, values, size });
  } catch (error) {
    throw creationError(`${output}: error while creating output image`, error);
  }
  const target = await openImage(session, {
    image: { text: output, format: outputFormat.name, imageOptions: false },
    readOnly: false,
    policy: {},
  });
  const permissions = Permission.write | Permission.resize;
  const writer = await attachUser(session, { node: target, name: output, taken: permissions });
  if (start > end) report(program, `${input}: cannot skip to specified offset`);
  const buffer = new Uint8Array(Math.min(STEP_BYTES, size));
  for (let offset = start; offset < end; offset += buffer.length) {
    const step = buffer.subarray(0, Math.min(buffer.length, end - offset));
    await named('reading from input', reader.read(offset, step));
    await named('writing to output', writer.write(offset - start, step));
  }
  await writer.detach();
  await reader.detach();
  return 0;
}

async function named(what: string, done: void | Promise<void>): Promise<void> {
  try {
    await done;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`error while ${what} image file: ${error.message}`);
  }
}

function requireFormat(name: string): CreateFormat {
  const format = createFormat(name);
  if (format !== null) return format;
  if (!Object.hasOwn(driverOptions, name)) throw new CliError('Unknown file format');
  throw new CliError(`Format driver '${name}' does not support image creation`);
}
