// SPDX-License-Identifier: Apache-2.0
// `img amend`: other creation options for an image that exists, as far as its format can.

import { BlockError, Permission } from '../../base/index.js';
import type { AmendOptions, OpenPolicy } from '../../block/index.js';
import { driverOptions } from '../../drivers/options-catalog.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { AMEND_FORMATS, amendHelp, createFormat, isHelp, OptionMistake } from './create/options.js';
import { OptionValues } from './create/options.js';
import type { CreateFormat } from './create/options.js';
import { Progress, progressMode } from './progress.js';
import { attachUser, cachePolicy, openImage, withSession } from './session.js';
import {
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  PROGRESS,
  QUIET,
  readVerbOptions,
  refuseFormatWithOptions,
  requireOptionList,
  usageError,
} from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  ...PROGRESS,
  QUIET,
  FORMAT,
  { name: 'cache', short: 't', argument: true },
  { name: 'options', short: 'o', argument: true },
  { name: 'force', long: 'force' },
];

const INTERRUPTED = 130;
/** Steps of progress that are told apart. */
const STEPS = 1000;

export const amend: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const given = new Map<string, string>();
    const lists: string[] = [];
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (name !== 'options') given.set(name, value);
      else lists.push(requireOptionList(value));
    });
    if (lists.length === 0) throw usageError(program, 'Must specify options (-o)');
    const format = given.get('format') ?? null;
    if (format !== null && lists.some(isHelp)) return printHelp(program, format);
    const imageOptions = given.has('image-opts');
    const [text] = operands;
    if (text === undefined || operands.length !== 1) {
      throw new CliError('Expecting one image file name');
    }
    refuseFormatWithOptions({ format, imageOptions });
    const image = { text, format, imageOptions };
    const policy = targetCache(given.get('cache') ?? 'writeback');
    const mode = progressMode(given);
    return withSession(program, async (session) => {
      const node = await openImage(session, { image, readOnly: false, policy });
      if (lists.some(isHelp)) return printHelp(program, node.driver.name);
      const { driverNode } = node;
      if (driverNode.amend === undefined) throw notAmendable(node.driver.name);
      const options = amendOptions(amendFormat(node.driver.name), lists);
      const { consistentRead, write, resize } = Permission;
      const taken = consistentRead | write | resize;
      const user = await attachUser(session, { node, name: image.text, taken });
      const progress = new Progress(program, mode, STEPS);
      const cancel = new AbortController();
      const interrupt = (): void => cancel.abort();
      process.on('SIGINT', interrupt);
      try {
        await driverNode.amend(options, {
          force: given.has('force'),
          isCancelled: () => cancel.signal.aborted,
          signal: cancel.signal,
          progress: (done, total) => progress.update(Math.floor((STEPS * done) / total)),
          resize: async (size) => node.truncate(size, { exact: false }),
        });
        progress.complete();
      } catch (error) {
        if (cancel.signal.aborted) return INTERRUPTED;
        // As the reference, which is done either way.
        progress.complete();
        if (error instanceof BlockError) throw new CliError(error.message, 1, error);
        throw error;
      } finally {
        process.off('SIGINT', interrupt);
        progress.end();
      }
      await user.detach();
      return 0;
    });
  },
};

function printHelp(program: Program, format: string): number {
  if (!Object.hasOwn(driverOptions, format)) throw new CliError(`Unknown file format '${format}'`);
  program.out(amendHelp(amendFormat(format)));
  return 0;
}

function amendFormat(format: string): CreateFormat {
  const found = AMEND_FORMATS.find(({ name }) => name === format);
  if (found === undefined) throw notAmendable(format);
  return found;
}

function notAmendable(format: string): CliError {
  return new CliError(`Format driver '${format}' does not support option amendment`);
}

function targetCache(mode: string): OpenPolicy {
  const policy = cachePolicy(mode);
  if (policy === null) throw new CliError(`Invalid cache option: ${mode}`);
  return policy;
}

/** The `-o` lists as the driver takes them. */
function amendOptions(format: CreateFormat, lists: readonly string[]): AmendOptions {
  const values = new OptionValues(format);
  try {
    for (const list of lists) values.parse(list);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const name = /^Invalid parameter '(.*)'$/.exec(error.message)?.[1];
    const creating = createFormat(format.name)?.options.some((each) => each.name === name);
    if (creating === true) {
      throw new CliError(error.message, 1, 'This option is only supported for image creation\n');
    }
    const because = error instanceof OptionMistake ? error.lines : error;
    throw new CliError(error.message, 1, because);
  }
  const options: Record<string, string | number | boolean> = {};
  for (const { name, type } of format.options) {
    const value = values.get(name);
    if (value === null) continue;
    if (type === 'bool') options[name] = value === 'on';
    else options[name] = type === 'string' ? value : Number(value);
  }
  return options;
}
