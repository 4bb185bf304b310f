// SPDX-License-Identifier: Apache-2.0
// `blockwright img VERB`: finds the verb, loads it, prints how it failed.

import { OptionError, readOptions } from '../getopt.js';
import type { OptionSpec } from '../getopt.js';
import { report, reportFailure } from '../program.js';
import type { Program } from '../program.js';
import { versionText } from '../version.js';
import { helpText } from './help.js';
import { ListWanted } from './objects.js';
import { SuffixError } from './numbers.js';
import { HelpWanted, TRY_HELP } from './verb.js';
import { loadVerb } from './verbs.js';

const GLOBAL: readonly OptionSpec[] = [
  { name: 'help', short: 'h', long: 'help' },
  { name: 'version', short: 'V', long: 'version' },
  { name: 'trace', short: 'T', long: 'trace', argument: true, unsupported: true },
];

export async function runImg(args: readonly string[], program: Program): Promise<number> {
  const tryHelp = TRY_HELP.replace('qemu-img', program.name);
  const verbAt = args.findIndex((word) => !word.startsWith('-'));
  const before = verbAt < 0 ? args : args.slice(0, verbAt);
  const wanted: string[] = [];
  try {
    readOptions(before, GLOBAL, (name) => void wanted.push(name));
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    if (error.mistake === 'unsupported') report(program, `option '${error.word}' is not supported`);
    else report(program, `unrecognized option '${error.word}'`, tryHelp);
    return 1;
  }
  if (wanted[0] === 'help') {
    program.out(await helpText(program));
    return 0;
  }
  if (wanted[0] === 'version') {
    program.out(versionText(program.name));
    return 0;
  }
  const name = args[verbAt];
  if (name === undefined) {
    report(program, 'Not enough arguments', tryHelp);
    return 1;
  }
  return runVerb(name, args.slice(verbAt + 1), program);
}

async function runVerb(name: string, args: readonly string[], program: Program): Promise<number> {
  const verb = await loadVerb(name);
  if (verb === null) {
    const tryHelp = TRY_HELP.replace('qemu-img', program.name);
    report(program, `Command not found: ${name}`, tryHelp);
    return 1;
  }
  try {
    return await verb.run(args, program);
  } catch (error) {
    if (error instanceof HelpWanted) {
      program.out(await helpText(program));
      return 0;
    }
    if (error instanceof ListWanted) {
      program.out(error.message);
      return 0;
    }
    const status = reportFailure(program, error);
    if (error instanceof SuffixError) report(program, error.secondLine);
    return status;
  }
}
