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
  /** Not an option: operands in front of `--` are handed out under its name, in their place. */
  readonly operand?: boolean;
}

export type OptionMistake = 'unrecognized' | 'missing-argument' | 'unsupported';

export class OptionError extends Error {
  readonly mistake: OptionMistake;
  /** The word of the command line (or the option's name) that is wrong, as it may be printed. */
  readonly word: string;
  /** The letter that is wrong in a word of short options. */
  readonly letter: string | null;

  constructor(mistake: OptionMistake, word: string, letter: string | null = null) {
    const shown = withoutSecret(word);
    super(`${mistake}: ${shown}`);
    this.mistake = mistake;
    this.word = shown;
    this.letter = letter;
  }
}

/** An option as it was written, without a value that may hold a secret. */
export function withoutSecret(words: string): string {
  return /secret|data/i.test(words) ? words.replace(/[= ].*/s, '') : words;
}

/** `words`: the option as it was written, with its value. */
export type OptionHandler = (name: string, value: string, words: string) => void;

/** Calls `handle` for each option (value empty when it takes none); gives the operands. */
export function readOptions(
  args: readonly string[],
  specs: readonly OptionSpec[],
  handle: OptionHandler,
): string[] {
  const reader = new OptionReader(args, specs, handle);
  return reader.run();
}

/** A mistake in the words of getopt_long, which names long options in full. */
export function mistakeText(error: OptionError, specs: readonly OptionSpec[]): string {
  const { mistake, word, letter } = error;
  if (letter !== null) {
    if (mistake === 'missing-argument') return `option requires an argument -- '${letter}'`;
    return `invalid option -- '${letter}'`;
  }
  if (mistake === 'unsupported') return `option '${word}' is not supported`;
  const [name = ''] = word.slice(2).split('=', 1);
  const possible = specs.flatMap(({ long }) => (long?.startsWith(name) === true ? [long] : []));
  const full = possible.includes(name) || possible.length !== 1 ? name : possible[0];
  if (mistake === 'missing-argument') return `option '--${full}' requires an argument`;
  if (possible.length === 0) return `unrecognized option '${word}'`;
  if (possible.length === 1 || possible.includes(name)) {
    return `option '--${full}' doesn't allow an argument`;
  }
  const list = possible.map((long) => `'--${long}'`).join(' ');
  return `option '${word}' is ambiguous; possibilities: ${list}`;
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
      else this.#operand(word);
    }
    return this.#operands;
  }

  #operand(word: string): void {
    const spec = this.#specs.find(({ operand }) => operand === true);
    if (spec === undefined) this.#operands.push(word);
    else this.#handle(spec.name, word, word);
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
      this.#handle(spec.name, '', word);
      return;
    }
    if (equals >= 0) this.#handle(spec.name, word.slice(equals + 1), word);
    else this.#handleNext(spec, word);
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
        if (joined === '') this.#handleNext(spec, word, letter);
        else this.#handle(spec.name, joined, word);
        return;
      }
      this.#handle(spec.name, '', word);
    }
  }

  #handleNext(spec: OptionSpec, word: string, letter: string | null = null): void {
    const value = this.#take(word, letter);
    this.#handle(spec.name, value, `${word} ${value}`);
  }

  #take(word: string, letter: string | null): string {
    const value = this.#args[this.#next];
    if (value === undefined) throw new OptionError('missing-argument', word, letter);
    this.#next += 1;
    return value;
  }
}
