// SPDX-License-Identifier: Apache-2.0
// Commands about the program itself: ending it, well or by a signal, and help.
//
// `abort` and `sigraise` end the process as the signal does: nothing is flushed or closed, so that
// an image is left as a crash leaves it.

import { constants } from 'node:os';

import { CommandFailure, usageLine } from './command.js';
import type { Command } from './command.js';
import { sizeOf } from './numbers.js';

const LAST_SIGNAL = 65;
const IGNORED_BY_NODE = ['SIGXFSZ'] as const;
const { signals } = constants;

/**
 * Without effect in the reference, whose event loop keeps SIGBUS, SIGUSR1, SIGALRM and SIGIO to
 * itself, and where the C library does so with 32 and 33.
 */
const WITHOUT_EFFECT: ReadonlySet<number> = new Set([7, 10, 14, 29, 32, 33]);

export const quit: Command = {
  name: 'quit',
  alias: 'q',
  usage: '',
  about: 'exits the program',
  words: [0, null],
  standsAlone: true,
  run(shell) {
    shell.done = true;
  },
};

export const abort: Command = {
  name: 'abort',
  usage: '',
  about: 'simulates a crash of the program (SIGABRT)',
  words: [0, 0],
  standsAlone: true,
  run(shell) {
    shell.program.forget?.();
    process.kill(process.pid, 'SIGABRT');
  },
};

export const sigraise: Command = {
  name: 'sigraise',
  usage: 'signal',
  about: 'raises a signal',
  words: [1, 1],
  standsAlone: true,
  manual: ["The signal is a number: 'sigraise 9' ends the program as SIGKILL does."],
  run(shell, given) {
    const [text = ''] = given.words;
    const signal = sizeOf(text);
    if (signal > LAST_SIGNAL) {
      throw new CommandFailure(`signal argument '${text}' is too large to be a valid signal`);
    }
    shell.program.flush?.();
    raise(signal);
  },
};

/** Numbers that are no signal do nothing. */
function raise(signal: number): void {
  if (WITHOUT_EFFECT.has(signal)) return;
  try {
    for (const name of IGNORED_BY_NODE) {
      // What Node ignores gets its default effect back with the last listener.
      const listener = (): void => undefined;
      if (signals[name] === signal) process.on(name, listener).off(name, listener);
    }
    process.kill(process.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  }
}

export const help: Command = {
  name: 'help',
  alias: '?',
  usage: '[command]',
  about: 'help for one or all commands',
  words: [0, 1],
  standsAlone: true,
  run(shell, given) {
    const [name] = given.words;
    if (name === undefined) {
      const lines = shell.commands.map(usageLine).join('\n');
      shell.program.out(`${lines}\n\nUse 'help commandname' for extended help.\n`);
      return;
    }
    const command = shell.find(name);
    if (command === null) throw new CommandFailure(`command ${name} not found`);
    shell.program.out(manualText(command));
  },
};

function manualText(command: Command): string {
  const flags = (command.flags ?? []).map(({ letter, value, about }) => {
    const start = value === undefined ? `-${letter}` : `-${letter} ${value}`;
    return ` ${start} -- ${about}`;
  });
  const manual = (command.manual ?? []).map((line) => ` ${line}`);
  const parts = [usageLine(command)];
  if (command.alias !== undefined) parts.push(` also: ${command.alias}`);
  if (manual.length > 0) parts.push('', ...manual);
  if (flags.length > 0) parts.push('', ...flags);
  return `${parts.join('\n')}\n`;
}
