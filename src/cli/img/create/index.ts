// SPDX-License-Identifier: Apache-2.0
// `img create`: an empty image, or an overlay on a backing file. The backing file is opened (and
// closed again) without locks: it may be in use.

import { BlockError, escapeControls } from '../../../base/index.js';
import { creationPath, resolveBackingName } from '../../../block/index.js';
import type { OptionSpec } from '../../getopt.js';
import { CliError } from '../../program.js';
import type { Program } from '../../program.js';
import { createImage, creationError } from './image.js';
import {
  createFormat,
  isHelp,
  OptionMistake,
  optionsHelp,
  OptionValues,
} from './options.js';
import type { CreateFormat } from './options.js';
import { sizeArgument } from '../numbers.js';
import { withSession } from '../session.js';
import type { Session } from '../session.js';
import { FORMAT, OBJECT, QUIET, readVerbOptions, usageError } from '../verb.js';
import type { Verb } from '../verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  QUIET,
  FORMAT,
  { name: 'backing', short: 'b', argument: true },
  { name: 'backing-format', short: 'F', argument: true },
  { name: 'unsafe', short: 'u' },
  { name: 'options', short: 'o', argument: true },
];

interface CreateArguments {
  readonly path: string;
  readonly sizeText: string | null;
  readonly quiet: boolean;
  readonly unsafe: boolean;
  readonly values: OptionValues;
}

export const create: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const parsed = parse(args, program);
    if (typeof parsed === 'string') {
      program.out(parsed);
      return 0;
    }
    return withSession(program, async (session) => {
      const { path, values } = parsed;
      try {
        creationPath(path);
        const size = await settleSize(session, parsed);
        if (values.size === null) values.set('size', String(size));
        if (!parsed.quiet) {
          const name = escapeControls(path);
          const described = escapeControls(values.describe());
          program.out(`Formatting '${name}', fmt=${values.format.name}${described}\n`);
          program.flush?.();
        }
        await createImage(session, { path, values, size });
      } catch (error) {
        throw creationError(path, error);
      }
      return 0;
    });
  },
};

/** Text when help was asked for. */
function parse(args: readonly string[], program: Program): CreateArguments | string {
  let formatName = 'raw';
  const lists: string[] = [];
  const given = new Map<string, string>();
  const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
    if (name === 'format') formatName = value;
    else if (name === 'options') lists.push(value);
    else given.set(name, value);
  });
  if (lists.some(isHelp)) {
    const known = createFormat(formatName);
    if (known === null) throw new CliError(`Unknown file format '${formatName}'`);
    return optionsHelp(known);
  }
  const [path, sizeText] = operands;
  if (path === undefined) throw usageError(program, 'Expecting image file name');
  if (sizeText !== undefined) sizeArgument('image size', sizeText);
  const [, , extra] = operands;
  if (extra !== undefined) throw usageError(program, `Unexpected argument: ${extra}`);
  try {
    const values = readValues(requireFormat(formatName), lists, given);
    return {
      path,
      sizeText: sizeText ?? null,
      quiet: given.has('quiet'),
      unsafe: given.has('unsafe'),
      values,
    };
  } catch (error) {
    throw creationError(path, error);
  }
}

function requireFormat(name: string): CreateFormat {
  const known = createFormat(name);
  if (known !== null) return known;
  if (name === 'null-co') {
    const text = `Format driver '${name}' does not support image creation`;
    throw new BlockError('unsupported', text);
  }
  throw new BlockError('invalid-option', `Unknown file format '${name}'`);
}

function readValues(
  format: CreateFormat,
  lists: readonly string[],
  given: ReadonlyMap<string, string>,
): OptionValues {
  const values = new OptionValues(format);
  for (const list of lists) values.parse(list);
  const file = given.get('backing');
  const backingFormat = given.get('backing-format');
  if (file !== undefined) setBacking(values, 'backing_file', file);
  if (backingFormat !== undefined) setBacking(values, 'backing_fmt', backingFormat);
  return values;
}

function setBacking(
  values: OptionValues,
  name: 'backing_file' | 'backing_fmt',
  text: string,
): void {
  if (!values.format.backing) {
    const what = name === 'backing_file' ? 'Backing file' : 'Backing file format';
    const message = `${what} not supported for file format '${values.format.name}'`;
    throw new BlockError('unsupported', message);
  }
  values.set(name, text);
}

/** The size given, or that of the backing file, which is looked at unless -u was given. */
async function settleSize(
  session: Session,
  request: CreateArguments,
): Promise<number> {
  const { values, sizeText, path } = request;
  const given = sizeText === null ? null : sizeArgument('image size', sizeText);
  if (given !== null && values.size !== null) {
    throw new BlockError('invalid-option', 'The image size must be specified only once');
  }
  let size = given ?? values.size;
  const backing = values.get('backing_file');
  const format = values.get('backing_fmt');
  if (backing !== null && backing === path) {
    const text = 'Error: Trying to create an image with the same filename as the backing file';
    throw new BlockError('invalid-option', text);
  }
  if (backing !== null && !request.unsafe) {
    const length = await backingLength(session, resolveBackingName(path, backing), format);
    size ??= length;
  } else if (backing !== null && format === null) {
    throw new BlockError('invalid-option', 'Backing file specified without backing format');
  }
  if (size === null) {
    throw new BlockError('invalid-option', 'Image creation needs a size parameter');
  }
  return size;
}

async function backingLength(
  session: Session,
  path: string,
  format: string | null,
): Promise<number> {
  const policy = { inspectOnly: true, noData: true, forceShare: true };
  let node;
  try {
    node = await session.graph.openImage(path, format, true, policy);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const message = error.message.replace(`Could not open '${path}': `, '');
    throw new BlockError(error.kind, message, { hint: 'Could not open backing image.' });
  }
  const { length } = node;
  const found = node.driver.name;
  await session.graph.close(node);
  if (format === null) {
    // The hint ends without a newline, as the reference's does.
    const text = 'Backing file specified without backing format';
    throw new OptionMistake(text, `Detected format of ${found}.`);
  }
  return length;
}

