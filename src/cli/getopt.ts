// SPDX-License-Identifier: Apache-2.0
// Command-line options in the manner of getopt_long: grouped short options (`-qp`), values joined
// (`-oKEY=V`, `--output=json`) or in the next word, unique prefixes of long names, options after
// operands, and `--`. Options are handed out one by one, in order, so that the first mistake in
// the command line is the one that is named.

export interface OptionSpec {
  /** Name given to the handler: the long name, or the letter of an option without one. */
  readonly name: string;
  readonly short?: string;
  readonly long?: string;
  readonly argument?: boolean;
  /** Known to the reference, not done here yet: refused by name. */
  readonly unsupported?: boolean;
}

export type OptionMistake = 'unrecognized' | 'missing-argument' | 'unsupported';

export class OptionError extends Error {
  readonly mistake: OptionMistake;
  /** The word of the command line (or the option's name) that is wrong. */
  readonly word: string;
  /** The letter that is wrong in a word of short options. */
  readonly letter: string | null;

  constructor(mistake: OptionMistake, word: string, letter: string | null = null) {
    super(`${mistake}: ${word}`);
    this.mistake = mistake;
    this.word = word;
    this.letter = letter;
  }
}

export type OptionHandler = (name: string, value: string) => void;

/** Calls `handle` for each option (value empty when it takes none); gives the operands. */
export function readOptions(
  args: readonly string[],
  specs: readonly OptionSpec[],
  handle: OptionHandler,
): string[] {
  const reader = new OptionReader(args, specs, handle);
  return reader.run();
}

class OptionReader {
  readonly #args: readonly string[];
  readonly #specs: readonly OptionSpec[];
  readonly #handle: OptionHandler;
  readonly #operands: string[] = [];
  #next = 0;

  constructor(args: readonly string[], specs: readonly OptionSpec[], handle: OptionHandler) {
    this.#args = args;
    this.#specs = specs;
    this.#handle = handle;
  }

  run(): string[] {
    while (this.#next < this.#args.length) {
      const word = this.#args[this.#next] ?? '';
      this.#next += 1;
      if (word === '--') {
        this.#operands.push(...this.#args.slice(this.#next));
        break;
      }
      if (word.startsWith('--')) this.#long(word);
      else if (word.startsWith('-') && word.length > 1) this.#group(word);
      else this.#operands.push(word);
    }
    return this.#operands;
  }

  #long(word: string): void {
    const equals = word.indexOf('=');
    const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
    const exact = this.#specs.find((spec) => spec.long === name);
    const similar = this.#specs.filter((spec) => spec.long?.startsWith(name) === true);
    const spec = exact ?? (similar.length === 1 ? similar[0] : undefined);
    if (spec === undefined) throw new OptionError('unrecognized', word);
    if (spec.unsupported === true) throw new OptionError('unsupported', `--${spec.long}`);
    if (spec.argument !== true) {
      if (equals >= 0) throw new OptionError('unrecognized', word);
      this.#handle(spec.name, '');
      return;
    }
    const value = equals < 0 ? this.#take(word) : word.slice(equals + 1);
    this.#handle(spec.name, value);
  }

  #group(word: string): void {
    for (let at = 1; at < word.length; at += 1) {
      const letter = word[at] ?? '';
      const spec = this.#specs.find((each) => each.short === letter);
      if (spec === undefined) {
        throw new OptionError('unrecognized', word, letter);
      }
      if (spec.unsupported === true) throw new OptionError('unsupported', `-${letter}`);
      if (spec.argument === true) {
        const joined = word.slice(at + 1);
        this.#handle(spec.name, joined === '' ? this.#take(word, letter) : joined);
        return;
      }
      this.#handle(spec.name, '');
    }
  }

  #take(word: string, letter: string | null = null): string {
    const value = this.#args[this.#next];
    if (value === undefined) throw new OptionError('missing-argument', word, letter);
    this.#next += 1;
    return value;
  }
}
