// SPDX-License-Identifier: Apache-2.0
// `img resize`: another virtual size, given whole or as +SIZE or -SIZE. The size is the last word
// of the command line whatever it looks like, so that -SIZE is no option. Less than there is now
// takes --shrink; what is new reads as zeroes.

import { Permission } from '../../base/index.js';
import type { TruncateOptions } from '../../block/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { parameterSize } from './numbers.js';
import { attachUser, openImage, withSession } from './session.js';
import {
  FORMAT,
  HelpWanted,
  IMAGE_OPTS,
  OBJECT,
  QUIET,
  readVerbOptions,
  refuseFormatWithOptions,
  usageError,
} from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  QUIET,
  { name: 'preallocation', long: 'preallocation', argument: true },
  { name: 'shrink', long: 'shrink' },
];

const MODES = ['off', 'metadata', 'falloc', 'full'] as const;

export const resize: Verb = {
  options: OPTIONS,
  async run(args, program) {
    if (args.length === 1 && (args[0] === '-h' || args[0] === '--help')) throw new HelpWanted();
    const sizeText = args.at(-1);
    if (sizeText === undefined || args.length < 2) {
      throw usageError(program, 'Not enough arguments');
    }
    const given = new Map<string, string>();
    let preallocation: TruncateOptions['preallocation'] = 'off';
    const input = { args: args.slice(0, -1), specs: OPTIONS };
    const operands = readVerbOptions(program, input, (name, value) => {
      if (name === 'preallocation') preallocation = preallocationMode(value);
      else given.set(name, value);
    });
    const [text] = operands;
    if (text === undefined || operands.length !== 1) {
      throw usageError(program, 'Expecting image file name and size');
    }
    const sign = sizeText.startsWith('+') ? 1 : sizeText.startsWith('-') ? -1 : 0;
    const amount = parameterSize('size', sign === 0 ? sizeText : sizeText.slice(1));
    const format = given.get('format') ?? null;
    const imageOptions = given.has('image-opts');
    refuseFormatWithOptions({ format, imageOptions });
    return withSession(program, async (session) => {
      const image = { text, format, imageOptions };
      const node = await openImage(session, { image, readOnly: false, policy: {} });
      const { consistentRead, write, resize: grow } = Permission;
      const taken = consistentRead | write | grow;
      const user = await attachUser(session, { node, name: image.text, taken });
      const size = sign === 0 ? amount : node.length + sign * amount;
      refuseSize(program, { size, now: node.length, preallocation, shrink: given.has('shrink') });
      await node.truncate(size, { exact: false, preallocation });
      await user.detach();
      if (!given.has('quiet')) program.out('Image resized.\n');
      return 0;
    });
  },
};

function preallocationMode(text: string): TruncateOptions['preallocation'] {
  const mode = MODES.find((each) => each === text);
  if (mode === undefined) throw new CliError(`Invalid preallocation mode '${text}'`);
  return mode;
}

interface NewSize {
  /** Bytes. */
  readonly size: number;
  readonly now: number;
  readonly preallocation: TruncateOptions['preallocation'];
  readonly shrink: boolean;
}

function refuseSize(program: Program, { size, now, preallocation, shrink }: NewSize): void {
  if (size <= 0) throw new CliError('New image size must be positive');
  if (size <= now && preallocation !== 'off') {
    throw new CliError('Preallocation can only be used for growing images');
  }
  if (size >= now || shrink) return;
  throw new CliError(
    'Use the --shrink option to perform a shrink operation.',
    1,
    `${program.name}: warning: Shrinking an image will delete all data beyond the shrunken ` +
      "image's end. Before performing such an operation, make sure there is no important data " +
      'there.\n',
  );
}
