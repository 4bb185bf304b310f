// SPDX-License-Identifier: Apache-2.0
// What a verb of `blockwright img` is, and what all of them share: their options' handling,
// refusals in the words of the reference, and the choice of output.

import { OptionError, readOptions } from '../getopt.js';
import type { OptionHandler, OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { noteObject } from './objects.js';
import type { ImageName } from './session.js';

/** One of the commands of a verb that has such. */
export interface VerbCommand {
  readonly options: readonly OptionSpec[];
  /** As its help shows them. */
  readonly operands: string;
}

export interface Verb {
  /** Everything the verb accepts, for its help. */
  readonly options: readonly OptionSpec[];
  /** What follows the verb's name, where it is a family. */
  readonly commands?: Readonly<Record<string, VerbCommand>>;
  /** The exit status. */
  run(args: readonly string[], program: Program): Promise<number>;
}

export const FORMAT: OptionSpec = { name: 'format', short: 'f', argument: true };
export const OUTPUT: OptionSpec = { name: 'output', long: 'output', argument: true };
export const IMAGE_OPTS: OptionSpec = { name: 'image-opts', long: 'image-opts' };
export const OBJECT: OptionSpec = { name: 'object', long: 'object', argument: true };
export const FORCE_SHARE: OptionSpec = { name: 'share', short: 'U', long: 'force-share' };
export const QUIET: OptionSpec = { name: 'quiet', short: 'q' };
export const HELP: OptionSpec = { name: 'help', short: 'h', long: 'help' };
export const PROGRESS: readonly OptionSpec[] = [
  { name: 'show-progress', short: 'p' },
  { name: 'progress', long: 'progress', argument: true },
];
export const SOURCE_CACHE: OptionSpec = { name: 'source-cache', short: 'T', argument: true };

export const TRY_HELP = "Try 'qemu-img --help' for more information\n";

/** A mistake in the use of the program: the hint at the help follows. */
export function usageError(program: Program, message: string): CliError {
  return new CliError(message, 1, TRY_HELP.replace('qemu-img', program.name));
}

/** Thrown when -h was given: print the help and end well. */
export class HelpWanted extends Error {}

/** Reads the options of a verb; gives the operands. */
export function readVerbOptions(
  program: Program,
  input: {
    readonly args: readonly string[];
    readonly specs: readonly OptionSpec[];
    /** Exit status where something of --object cannot be made; 1 unless given. */
    readonly objectStatus?: number;
  },
  handle: OptionHandler,
): string[] {
  try {
    return readOptions(input.args, [HELP, ...input.specs], (name, value, words) => {
      if (name === 'help') throw new HelpWanted();
      if (name === 'object') noteObject(program, value, input.objectStatus);
      handle(name, value, words);
    });
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    if (error.mistake === 'unsupported') {
      throw new CliError(`option '${error.word}' is not supported`);
    }
    const text =
      error.mistake === 'unrecognized' ? 'unrecognized option' : 'missing argument for option';
    throw usageError(program, `${text} '${error.word}'`);
  }
}

/** The list of an -o, if it is one. */
export function requireOptionList(list: string): string {
  if (list === '' || /^,|(?<!,),$/.test(list)) throw new CliError(`Invalid option list: ${list}`);
  return list;
}

export type OutputFormat = 'human' | 'json';

export function outputFormat(value: string): OutputFormat {
  if (value === 'human' || value === 'json') return value;
  throw new CliError('--output must be used with human or json as argument.');
}

/** The one operand of a verb. */
export function oneImage(
  program: Program,
  operands: readonly string[],
  options: { readonly format: string | null; readonly imageOptions: boolean },
): ImageName {
  const [text] = operands;
  if (text === undefined || operands.length !== 1) {
    throw usageError(program, 'Expecting one image file name');
  }
  refuseFormatWithOptions(options);
  return { text, ...options };
}

export function refuseFormatWithOptions(options: {
  readonly format: string | null;
  readonly imageOptions: boolean;
  /** Exit status; 1 unless given. */
  readonly status?: number;
}): void {
  if (options.imageOptions && options.format !== null) {
    const text = '--image-opts and --format are mutually exclusive';
    throw new CliError(text, options.status ?? 1);
  }
}
