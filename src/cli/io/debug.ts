// SPDX-License-Identifier: Apache-2.0
// Commands that make interleavings: requests held at points of the data path (through blkdebug),
// waiting for those beside the commands, and waiting for time.
//
// Where nothing can come of waiting any more, because no request is under way, the command fails
// instead of waiting for ever.

import { BlockError, errnoText } from '../../base/index.js';
import type { Breakpoints } from '../../block/index.js';
import { CommandFailure } from './command.js';
import type { Command } from './command.js';
import { wholeNumber } from './numbers.js';
import { release } from './shell.js';
import type { Shell } from './shell.js';

function breakpointsFor(shell: Shell, what: string): Breakpoints {
  const { breakpoints } = shell;
  if (breakpoints !== null) return breakpoints;
  throw new CommandFailure(`Could not ${what}: ${errnoText('ENOTSUP')}`);
}

const notFound = (what: string): CommandFailure =>
  new CommandFailure(`Could not ${what}: ${errnoText('ENOENT')}`);

export const breakAt: Command = {
  name: 'break',
  usage: 'event tag',
  about: 'sets a breakpoint on event and tags the stopped request as tag',
  words: [2, 2],
  run(shell, given) {
    const [event = '', tag = ''] = given.words;
    const breakpoints = breakpointsFor(shell, 'set breakpoint');
    try {
      breakpoints.set(event, tag);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      throw new CommandFailure(`Could not set breakpoint: ${errnoText(error.errno)}`);
    }
    shell.noteTag(tag);
    const tell = (): void => shell.program.out(`blkdebug: Suspended request '${tag}'\n`);
    void breakpoints.held(tag).then(tell, () => undefined);
  },
};

export const removeBreak: Command = {
  name: 'remove_break',
  usage: 'tag',
  about: 'removes a breakpoint by tag',
  words: [1, 1],
  run(shell, given) {
    const [tag = ''] = given.words;
    const what = `remove breakpoint ${tag}`;
    if (!release(shell, breakpointsFor(shell, what), tag)) throw notFound(what);
  },
};

export const resume: Command = {
  name: 'resume',
  usage: 'tag',
  about: 'resumes the request tagged as tag',
  words: [1, 1],
  run(shell, given) {
    const [tag = ''] = given.words;
    const breakpoints = breakpointsFor(shell, 'resume request');
    if (!breakpoints.resume(tag)) throw notFound('resume request');
    shell.program.out(`blkdebug: Resuming request '${tag}'\n`);
  },
};

export const waitBreak: Command = {
  name: 'wait_break',
  usage: 'tag',
  about: 'waits for the suspension of a request',
  words: [1, 1],
  async run(shell, given) {
    const [tag = ''] = given.words;
    const breakpoints = breakpointsFor(shell, 'wait for a request');
    if (breakpoints.isHolding(tag)) return;
    const idle = Promise.resolve(shell.idle());
    const end = await shell.wait(
      Promise.race([
        breakpoints.held(tag).then(() => 'held'),
        idle.then(() => (breakpoints.isHolding(tag) ? 'held' : 'idle')),
      ]),
    );
    if (end === 'held') return;
    throw new CommandFailure(`Could not wait for a request: none is under way to be '${tag}'`);
  },
};

export const aioFlush: Command = {
  name: 'aio_flush',
  usage: '',
  about: 'completes all outstanding aio requests',
  words: [0, 0],
  async run(shell) {
    await shell.wait(shell.idle());
  },
};

/** What timers can wait. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1;

export const sleep: Command = {
  name: 'sleep',
  usage: 'milliseconds',
  about: 'waits for the given value in milliseconds',
  words: [1, 1],
  standsAlone: true,
  async run(shell, given) {
    const [text = ''] = given.words;
    const delayMs = wholeNumber(text);
    if (delayMs === null || delayMs < 0 || delayMs > LONGEST_SLEEP_MS) {
      throw new CommandFailure(`${text} is not a valid number`);
    }
    await shell.wait(new Promise<void>((resolve) => void shell.clock.after(delayMs, resolve)));
  },
};
