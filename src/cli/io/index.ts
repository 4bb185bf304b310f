// SPDX-License-Identifier: Apache-2.0
// `blockwright io`: opens a file, runs the commands given with -c or read from standard input, and
// ends with 1 when one of them failed. Requests under way are waited for at the end.

import { createInterface } from 'node:readline';

import { BlockError } from '../../base/index.js';
import { mistakeText, OptionError, readOptions } from '../getopt.js';
import { CliError, isForeign, report, reportFailure } from '../program.js';
import type { Program } from '../program.js';
import { optionTree } from '../img/options/list.js';
import { ListWanted, noteObject } from '../img/objects.js';
import { withSession } from '../img/session.js';
import { versionText } from '../version.js';
import { warnOfProbing } from './open.js';
import {
  aioMode,
  DEFAULT_CACHE,
  discardMode,
  openFile,
  requireCacheMode,
} from './open-file.js';
import type { FileRequest } from './open-file.js';
import { helpText, OPTIONS } from './options.js';
import { Shell } from './shell.js';
import { COMMANDS } from './table.js';

const PROMPT = 'qemu-io> ';

interface CommandLine {
  readonly commands: readonly string[];
  readonly file: FileRequest | null;
  readonly timing: boolean;
}

export async function runIo(args: readonly string[], program: Program): Promise<number> {
  try {
    const parsed = parse(args, program);
    if (typeof parsed === 'string') {
      program.out(parsed);
      return 0;
    }
    return await withSession(program, (session) => {
      const { timing } = parsed;
      return runShell(new Shell({ commands: COMMANDS, program, session, timing }), parsed);
    });
  } catch (error) {
    if (error instanceof OptionError) {
      report(program, mistakeText(error, OPTIONS));
      program.out(helpText(program));
      return 1;
    }
    if (error instanceof ListWanted) {
      program.out(error.message);
      return 0;
    }
    return reportFailure(program, error);
  }
}

/** Text when help or the version was asked for. */
function parse(args: readonly string[], program: Program): CommandLine | string {
  const commands: string[] = [];
  const given = new Map<string, string>();
  let cache = DEFAULT_CACHE;
  let nativeAio = false;
  let text: string | null = null;
  const operands = readOptions(args, OPTIONS, (name, value) => {
    given.set(name, value);
    if (name === 'help') text ??= helpText(program);
    if (name === 'version') text ??= versionText(program.name);
    // What was asked for before the first mistake is answered.
    if (text !== null) return;
    if (name === 'cmd') commands.push(value);
    if (name === 'nocache') cache = 'none';
    if (name === 'cache') cache = requireCacheMode(value);
    if (name === 'discard') discardMode(value);
    if (name === 'native-aio') nativeAio = true;
    if (name === 'aio') nativeAio = aioMode(value);
    if (name === 'object') noteObject(program, value);
    if (name === 'trace') warnOfTrace(program, value);
  });
  if (text !== null) return text;
  if (operands.length > 1) {
    program.out(helpText(program));
    throw new CliError('');
  }
  const [file = null] = operands;
  const hasOptions = given.has('image-opts');
  const format = given.get('format');
  if (hasOptions && format !== undefined && file !== null) {
    throw new CliError('--image-opts and -f are mutually exclusive');
  }
  const timing = !given.has('no-timing');
  if (file === null) return { commands, file: null, timing };
  const request: FileRequest = {
    name: hasOptions ? null : file,
    options: hasOptions ? givenTree(file, program) : formatOption(format),
    cache,
    nativeAio,
    unmap: discardMode(given.get('discard') ?? 'unmap'),
    readOnly: given.has('read-only'),
    snapshot: given.has('snapshot'),
    copyOnRead: given.has('copy-on-read'),
    forceShare: given.has('share'),
  };
  return { commands, file: request, timing };
}

function givenTree(text: string, program: Program): FileRequest['options'] {
  try {
    return optionTree(text, program);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`can't open: ${error.message}`, 1, error);
  }
}

function formatOption(format: string | undefined): FileRequest['options'] {
  return format === undefined ? {} : { driver: format };
}

/** Patterns that could have matched pass. */
function warnOfTrace(program: Program, value: string): void {
  for (const item of value.split(',')) {
    const pattern = item.replace(/^enable=/, '');
    if (/^(events|file)=/.test(item) || pattern.includes('*')) continue;
    report(program, `warning: trace event '${pattern}' does not exist`);
  }
}

async function runShell(shell: Shell, line: CommandLine): Promise<number> {
  if (line.file !== null) {
    shell.file = await openFile(shell.session, line.file);
    warnOfProbing(shell, line.file.name);
  }
  const run = line.commands.length > 0 ? runCommands(shell, line.commands) : runInput(shell);
  const isWell = await run;
  try {
    await shell.close();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    // Told, and no command has failed by it.
    for (const text of wordsOfLoss(shell.program)) shell.warn(`${text}: ${error.message}`);
  }
  return isWell ? 0 : 1;
}

/** What stays in memory at the end is tables, as far as the reference's words go. */
function wordsOfLoss(program: Program): readonly string[] {
  if (!isForeign(program)) return ['Could not write everything back'];
  return ['L2 table', 'refcount block'].map((what) => `Failed to flush the ${what} cache`);
}

async function runCommands(shell: Shell, commands: readonly string[]): Promise<boolean> {
  let isWell = true;
  for (const command of commands) {
    if (shell.done) break;
    if (!(await shell.run(command))) isWell = false;
  }
  return isWell;
}

async function runInput(shell: Shell): Promise<boolean> {
  let isWell = true;
  const lines = createInterface({ input: process.stdin, terminal: false });
  const reader = lines[Symbol.asyncIterator]();
  try {
    while (!shell.done) {
      shell.program.out(PROMPT);
      shell.program.flush?.();
      const { value, done } = await shell.wait(reader.next());
      if (done === true) break;
      if (!(await shell.run(value))) isWell = false;
    }
  } finally {
    lines.close();
    process.stdin.unref();
  }
  return isWell;
}
