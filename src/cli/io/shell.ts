// SPDX-License-Identifier: Apache-2.0
// One run of `blockwright io`: the open file, requests under way, and commands one after another.
//
// Requests of aio_ commands run beside the commands that follow. What they print when they end is
// kept until a command waits for something (I/O, time, input), as nothing is seen in between.
// Requests held at a breakpoint that nobody resumes any more are let go when the file is closed.

import { BlockError, Permission, systemClock, toBlockError } from '../../base/index.js';
import type { Clock, Eventually } from '../../base/index.js';
import { errnoText } from '../../base/index.js';
import type { Breakpoints } from '../../block/index.js';
import { breakpointsOf } from '../../block/index.js';
import { report, reportFailure } from '../program.js';
import type { Program } from '../program.js';
import type { Session } from '../img/session.js';
import {
  CommandFailure,
  GivenWords,
  UsageFailure,
  usageLine,
  wordCountMistake,
} from './command.js';
import type { Command } from './command.js';
import type { OpenFile } from './open-file.js';

export interface ShellParts {
  /** In the order in which help lists them. */
  readonly commands: readonly Command[];
  readonly program: Program;
  readonly session: Session;
  /** Print how long requests took. */
  readonly timing: boolean;
}

export class Shell {
  readonly commands: readonly Command[];
  readonly program: Program;
  readonly session: Session;
  readonly timing: boolean;
  readonly clock: Clock = systemClock;
  /** Set by quit. */
  done = false;
  #file: OpenFile | null = null;
  #underWay = 0;
  #waiters: (() => void)[] = [];
  /** How many wait for something: what ends meanwhile prints at once. */
  #waiting = 0;
  #ended: (() => void)[] = [];
  readonly #tags = new Set<string>();

  constructor({ commands, program, session, timing }: ShellParts) {
    this.commands = commands;
    this.program = program;
    this.session = session;
    this.timing = timing;
  }

  get isOpen(): boolean {
    return this.#file !== null;
  }

  /** Commands that need a file are not run without one. */
  get file(): OpenFile {
    if (this.#file === null) throw new CommandFailure("no file open, try 'help open'", 'err');
    return this.#file;
  }

  set file(file: OpenFile) {
    this.#file = file;
  }

  /** Runs one line; false when it failed. */
  async run(line: string): Promise<boolean> {
    const [called, ...words] = line.split(' ').filter((word) => word !== '');
    if (called === undefined) return true;
    const command = this.find(called);
    if (command === null) {
      this.program.err(`command "${called}" not found\n`);
      return false;
    }
    try {
      await this.#runCommand(command, called, words);
      return true;
    } catch (error) {
      this.#tell(error, command);
      return false;
    }
  }

  /** By name or alias. */
  find(name: string): Command | null {
    return this.commands.find((each) => each.name === name || each.alias === name) ?? null;
  }

  async #runCommand(command: Command, called: string, words: readonly string[]): Promise<void> {
    if (command.standsAlone !== true && !this.isOpen) {
      throw new CommandFailure("no file open, try 'help open'", 'err');
    }
    const mistake = wordCountMistake(command, called, words.length);
    if (mistake !== null) throw new CommandFailure(mistake, 'err');
    if (command.permissions !== undefined && this.isOpen) this.take(command.permissions);
    await command.run(this, new GivenWords(command, called, words));
  }

  #tell(error: unknown, command: Command): void {
    if (error instanceof UsageFailure) {
      if (error.complaint !== '') this.program.err(`${error.complaint}\n`);
      this.program.out(`${usageLine(command)}\n`);
    } else if (error instanceof CommandFailure) {
      if (error.message === '') return;
      if (error.stream === 'out') this.program.out(`${error.message}\n`);
      else this.program.err(`${error.message}\n`);
    } else {
      reportFailure(this.program, error);
    }
  }

  /** Permissions beside those that the file has; throws and changes nothing when refused. */
  take(permissions: number): void {
    const { backend } = this.file;
    const { taken, shared } = backend.child.permissions;
    if ((taken & permissions) === permissions) return;
    if (backend.node.readOnly) {
      throw new BlockError('read-only', 'Block node is read-only');
    }
    backend.setPermissions({ taken: taken | permissions, shared });
  }

  /** Gives up the right to write. */
  stopWriting(): void {
    const { backend } = this.file;
    const { taken, shared } = backend.child.permissions;
    const writing = Permission.write | Permission.writeUnchanged | Permission.resize;
    backend.setPermissions({ taken: taken & ~writing, shared });
  }

  /** Waits; what other requests print meanwhile comes first. */
  async wait<T>(result: Eventually<T>): Promise<T> {
    this.#waiting += 1;
    this.#printEnded();
    try {
      return await result;
    } finally {
      this.#waiting -= 1;
      this.#printEnded();
    }
  }

  /** Runs beside the commands; `ended` prints how it ended, with the error if it failed. */
  start(begin: () => Eventually<void>, ended: (error: unknown) => void): void {
    this.#underWay += 1;
    const end = (error: unknown): void => {
      this.#ended.push(() => ended(error));
      this.#underWay -= 1;
      if (this.#waiting > 0) this.#printEnded();
      if (this.#underWay > 0) return;
      const waiters = this.#waiters;
      this.#waiters = [];
      for (const wake of waiters) wake();
    };
    let result: Eventually<void>;
    try {
      result = begin();
    } catch (error) {
      end(error);
      return;
    }
    if (result instanceof Promise) result.then(() => end(null), end);
    else end(null);
  }

  #printEnded(): void {
    const ended = this.#ended;
    this.#ended = [];
    for (const print of ended) print();
  }

  /** Until nothing runs beside the commands. */
  idle(): Eventually<void> {
    if (this.#underWay === 0) return undefined;
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  get isIdle(): boolean {
    return this.#underWay === 0;
  }

  get breakpoints(): Breakpoints | null {
    return breakpointsOf(this.file.node);
  }

  noteTag(tag: string): void {
    this.#tags.add(tag);
  }

  /** Closes the file; throws what could not be written. */
  async close(): Promise<void> {
    const file = this.#file;
    if (file === null) return;
    const { breakpoints } = this;
    if (breakpoints !== null) for (const tag of this.#tags) release(this, breakpoints, tag);
    this.#tags.clear();
    await this.wait(this.idle());
    this.#file = null;
    await this.wait(file.close());
  }

  /** A failure at the end of the run, where no command can fail any more. */
  warn(text: string): void {
    report(this.program, text);
  }
}

/** Takes all breakpoints of that tag away; false when there was none. */
export function release(shell: Shell, breakpoints: Breakpoints, tag: string): boolean {
  let found = false;
  for (;;) {
    const isHolding = breakpoints.isHolding(tag);
    const removed = breakpoints.remove(tag);
    if (isHolding) shell.program.out(`blkdebug: Resuming request '${tag}'\n`);
    found ||= removed;
    if (!removed) return found;
  }
}

/** `read failed: Input/output error`; contradictions in an image are errors of its device. */
export function requestFailure(verb: string, thrown: unknown): CommandFailure {
  const error = toBlockError(thrown);
  const isCorrupt = error.kind === 'corrupt-image' && error.context.errno === undefined;
  return new CommandFailure(`${verb} failed: ${errnoText(isCorrupt ? 'EIO' : error.errno)}`);
}
