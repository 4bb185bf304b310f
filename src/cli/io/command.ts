// SPDX-License-Identifier: Apache-2.0
// What a command of `blockwright io` is: one declaration gives its parsing, its refusals, its help
// line and its manual. Options are read as getopt reads them, letters only, also after operands.
//
// A command gives true or throws. What it throws as a CommandFailure is printed as it is; most
// refusals go to standard output, because scripts look for them there.

import type { PermissionMask } from '../../base/index.js';
import type { Shell } from './shell.js';

export interface CommandFlag {
  readonly letter: string;
  /** Name of its value in the manual; absent when it takes none. */
  readonly value?: string;
  /** One line of the manual. */
  readonly about: string;
}

export interface Command {
  readonly name: string;
  readonly alias?: string;
  /** Operands and options as the one-line help shows them. */
  readonly usage: string;
  /** What it does, in one line. */
  readonly about: string;
  /** Further lines of the manual. */
  readonly manual?: readonly string[];
  readonly flags?: readonly CommandFlag[];
  /** Fewest and most words after its name, options included; null = no limit. */
  readonly words: readonly [number, number | null];
  /** Runs without an open file. */
  readonly standsAlone?: boolean;
  /** Asked for before it runs, and kept afterwards. */
  readonly permissions?: PermissionMask;
  run(shell: Shell, given: GivenWords): void | Promise<void>;
}

/** Ends a command: the text is printed as it is, with a newline, unless it is empty. */
export class CommandFailure extends Error {
  readonly stream: 'out' | 'err';

  constructor(text: string, stream: 'out' | 'err' = 'out') {
    super(text);
    this.name = 'CommandFailure';
    this.stream = stream;
  }
}

/** The words were not those of the command: its line of help follows. */
export class UsageFailure extends Error {
  /** Printed first, on standard error. */
  readonly complaint: string;

  constructor(complaint = '') {
    super(complaint);
    this.name = 'UsageFailure';
    this.complaint = complaint;
  }
}

/** Called for each option in order, so that the first mistake is the one that is told. */
export type FlagCheck = (letter: string, value: string) => void;

/** The words after a command's name. */
export class GivenWords {
  readonly #command: Command;
  /** As it was called: the name or the alias. */
  readonly #called: string;
  readonly #words: readonly string[];
  readonly #flags = new Map<string, string>();
  readonly #counts = new Map<string, number>();
  #operands: readonly string[] = [];

  constructor(command: Command, called: string, words: readonly string[]) {
    this.#command = command;
    this.#called = called;
    this.#words = words;
  }

  /** Not read as options and operands. */
  get words(): readonly string[] {
    return this.#words;
  }

  /** Reads options and operands; throws UsageFailure, and what `check` throws. */
  read(operandCounts: readonly [number, number | null], check?: FlagCheck): readonly string[] {
    const operands: string[] = [];
    this.#flags.clear();
    this.#counts.clear();
    for (let at = 0; at < this.#words.length; at += 1) {
      const word = this.#words[at] ?? '';
      if (word === '--') {
        operands.push(...this.#words.slice(at + 1));
        break;
      }
      if (!word.startsWith('-') || word.length === 1) operands.push(word);
      else if (this.#group(word, this.#words[at + 1], check)) at += 1;
    }
    const [least, most] = operandCounts;
    if (operands.length < least || (most !== null && operands.length > most)) {
      throw new UsageFailure();
    }
    this.#operands = operands;
    return operands;
  }

  /** One word of options; true when the next word was the value of its last. */
  #group(word: string, next: string | undefined, check?: FlagCheck): boolean {
    for (let at = 1; at < word.length; at += 1) {
      const letter = word[at] ?? '';
      const flag = this.#command.flags?.find((each) => each.letter === letter);
      if (flag === undefined) {
        throw new UsageFailure(`${this.#called}: invalid option -- '${letter}'`);
      }
      if (flag.value === undefined) {
        this.#note(letter, '', check);
        continue;
      }
      const joined = word.slice(at + 1);
      if (joined !== '') {
        this.#note(letter, joined, check);
        return false;
      }
      if (next === undefined) {
        throw new UsageFailure(`${this.#called}: option requires an argument -- '${letter}'`);
      }
      this.#note(letter, next, check);
      return true;
    }
    return false;
  }

  #note(letter: string, value: string, check?: FlagCheck): void {
    check?.(letter, value);
    this.#flags.set(letter, value);
    this.#counts.set(letter, this.count(letter) + 1);
  }

  has(letter: string): boolean {
    return this.#flags.has(letter);
  }

  count(letter: string): number {
    return this.#counts.get(letter) ?? 0;
  }

  /** The value given last, or undefined. */
  value(letter: string): string | undefined {
    return this.#flags.get(letter);
  }

  operand(index: number): string {
    return this.#operands[index] ?? '';
  }
}

export function usageLine(command: Command): string {
  return `${[command.name, command.usage].join(' ')} -- ${command.about}`;
}

/** Null when the number of words is right, else the refusal. */
export function wordCountMistake(command: Command, called: string, count: number): string | null {
  const [least, most] = command.words;
  if (count >= least && (most === null || count <= most)) return null;
  const start = `bad argument count ${count} to ${called}, expected`;
  if (most === null) return `${start} at least ${least} arguments`;
  if (least === most) return `${start} ${least} arguments`;
  return `${start} between ${least} and ${most} arguments`;
}
