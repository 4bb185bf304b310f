// SPDX-License-Identifier: Apache-2.0
// `img bitmap`: adds, removes and changes one persistent bitmap of an image; what is asked for is
// done in the order of the command line. What was done before a step that fails stays done.

import { BlockError, escapeControls, Permission } from '../../../base/index.js';
import {
  addBitmap,
  clearBitmap,
  mergeBitmaps,
  removeBitmap,
  requireBitmap,
  setRecording,
} from '../../../block/index.js';
import type { Node } from '../../../block/index.js';
import type { OptionSpec } from '../../getopt.js';
import { CliError } from '../../program.js';
import type { Program } from '../../program.js';
import { sizeArgument } from '../numbers.js';
import { attachUser, openImage, withSession } from '../session.js';
import type { ImageName, Session } from '../session.js';
import {
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  readVerbOptions,
  refuseFormatWithOptions,
} from '../verb.js';
import type { Verb } from '../verb.js';

const ACTIONS = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const;

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  ...ACTIONS.map((name) => ({ name, long: name, argument: name === 'merge' })),
  { name: 'backing', short: 'b', long: 'source-file', argument: true },
  { name: 'granularity', short: 'g', long: 'granularity', argument: true },
  FORMAT,
  { name: 'second-format', short: 'F', long: 'source-format', argument: true },
];

interface Action {
  readonly name: (typeof ACTIONS)[number];
  /** The bitmap that is merged. */
  readonly source: string;
}

interface BitmapArguments {
  readonly image: ImageName;
  readonly bitmap: string;
  readonly actions: readonly Action[];
  /** Bytes. */
  readonly granularity: number | null;
  readonly source: ImageName | null;
}

export const bitmap: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const command = parse(args, program);
    return withSession(program, (session) => runBitmap(session, command));
  },
};

function parse(args: readonly string[], program: Program): BitmapArguments {
  const given = new Map<string, string>();
  const actions: Action[] = [];
  let granularity: number | null = null;
  const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
    const action = ACTIONS.find((each) => each === name);
    if (action !== undefined) actions.push({ name: action, source: value });
    else if (name === 'granularity') granularity = sizeArgument('granularity', value);
    else given.set(name, value);
  });
  if (actions.length === 0) {
    const names = '--add, --remove, --clear, --enable, --disable, or --merge';
    throw new CliError(`Need at least one of ${names}`);
  }
  const [text, name] = operands;
  if (text === undefined || name === undefined || operands.length !== 2) {
    throw new CliError('Expecting filename and bitmap name');
  }
  const has = (wanted: Action['name']): boolean => actions.some((each) => each.name === wanted);
  if (granularity !== null && !has('add')) {
    throw new CliError('granularity only supported with --add');
  }
  const sourceText = given.get('backing') ?? null;
  const sourceFormat = given.get('second-format') ?? null;
  if (sourceFormat !== null && sourceText === null) {
    throw new CliError('-F only supported with -b');
  }
  if (sourceText !== null && !has('merge')) {
    throw new CliError('Merge bitmap source file only supported with --merge');
  }
  const format = given.get('format') ?? null;
  const imageOptions = given.has('image-opts');
  refuseFormatWithOptions({ format, imageOptions });
  return {
    image: { text, format, imageOptions },
    bitmap: name,
    actions,
    granularity,
    source:
      sourceText === null
        ? null
        : { text: sourceText, format: sourceFormat, imageOptions: false },
  };
}

async function runBitmap(session: Session, command: BitmapArguments): Promise<number> {
  const { image, source } = command;
  const node = await openImage(session, { image, readOnly: false, policy: {} });
  const { consistentRead, write, resize } = Permission;
  const taken = consistentRead | write | resize;
  await attachUser(session, { node, name: image.text, taken });
  let from = node;
  if (source !== null) {
    from = await openImage(session, { image: source, readOnly: true, policy: { noBacking: true } });
    await attachUser(session, { node: from, name: source.text, taken: consistentRead });
  }
  for (const action of command.actions) {
    try {
      await perform(command, action, { node, from });
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const what = `Operation ${action.name} on bitmap ${escapeControls(command.bitmap)}`;
      throw new CliError(`${what} failed: ${error.message}`, 1, error);
    }
  }
  return 0;
}

async function perform(
  { bitmap: name, granularity }: BitmapArguments,
  action: Action,
  { node, from }: { readonly node: Node; readonly from: Node },
): Promise<void> {
  switch (action.name) {
    case 'add':
      addBitmap(node, {
        name,
        persistent: true,
        ...(granularity !== null && granularity !== 0 && { granularity }),
      });
      return;
    case 'remove':
      return removeBitmap(node, name);
    case 'clear':
      return clearBitmap(node, name);
    case 'enable':
    case 'disable':
      return setRecording(node, name, action.name === 'enable');
    case 'merge':
      mergeBitmaps(requireBitmap(node, name), [requireBitmap(from, action.source)]);
  }
}
