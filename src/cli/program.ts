// SPDX-License-Identifier: Apache-2.0
// The program as its command lines see it: its name in messages, its streams, how it fails.
//
// Everything printed from an image or a path passes escapeControls() where it goes to a person.
// A failure is thrown as a CliError (or a BlockError) and printed once, by whoever runs the verb.

import { BlockError, escapeControls } from '../base/index.js';
import type { Host } from '../host/index.js';

export interface Program {
  /** What stands in front of messages: `qemu-img` through the shim, else `blockwright img`. */
  readonly name: string;
  out(text: string): void;
  err(text: string): void;
  /** UTF-8 for the same stream as out(); true: the bytes are written or kept elsewhere. */
  outBytes?(bytes: Uint8Array): boolean;
  /** Resolves when not much of what was printed waits for its reader, or nobody reads it. */
  drained?(): Promise<void> | undefined;
  /** Standard output is a terminal. */
  readonly terminal: boolean;
  /** Where images are; this machine unless given. */
  readonly host?: Host;
}

/** What ends a command line with a message and an exit status. */
export class CliError extends Error {
  readonly status: number;
  /** Printed after the message as it is; most end with a newline. */
  readonly hint: string;
  /** Who holds the file, where that is why it failed. */
  readonly holder: string | undefined;

  /** `because`: what is printed after the message, or the failure that says it. */
  constructor(message: string, status = 1, because: string | BlockError = '') {
    super(message);
    this.name = 'CliError';
    this.status = status;
    this.hint = typeof because === 'string' ? because : hintOf(because);
    this.holder = typeof because === 'string' ? undefined : because.context.holder;
  }
}

/** `NAME: message`, one line, whatever bytes the message holds. */
export function report(program: Program, message: string, hint = ''): void {
  program.err(`${program.name}: ${escapeControls(message)}\n${hint}`);
}

/** Pieces are printed together up to so many characters. */
const PRINTED_AT_ONCE = 65_536;

/** Prints what would be too long as one text, no faster than it is read. */
export async function outPieces(program: Program, pieces: Iterable<string>): Promise<void> {
  let text = '';
  for (const piece of pieces) {
    text += piece;
    if (text.length < PRINTED_AT_ONCE) continue;
    program.out(text);
    text = '';
    await program.drained?.();
  }
  if (text !== '') program.out(text);
}

function hintOf(error: BlockError): string {
  const { hint } = error.context;
  return hint === undefined ? '' : `${hint.split('\n').map(escapeControls).join('\n')}\n`;
}

/** Scripts compare what is printed under the reference's names: nothing is added there. */
function holderLine(program: Program, holder: string | undefined): string {
  if (holder === undefined || program.name.startsWith('qemu-')) return '';
  return `It is held by ${escapeControls(holder)}.\n`;
}

/** Prints a failure and gives the exit status; assertion failures pass through. */
export function reportFailure(program: Program, error: unknown, status = 1): number {
  if (error instanceof CliError) {
    const hint = `${error.hint}${holderLine(program, error.holder)}`;
    if (error.message !== '') report(program, error.message, hint);
    return error.status;
  }
  if (error instanceof BlockError) {
    report(program, error.message, `${hintOf(error)}${holderLine(program, error.context.holder)}`);
    return status;
  }
  throw error;
}

/** The streams of this process. */
export function processProgram(name: string): Program {
  return {
    name,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    outBytes(bytes) {
      process.stdout.write(bytes);
      return process.stdout.writableLength === 0;
    },
    drained: () => (process.stdout.writableNeedDrain ? drained() : undefined),
    terminal: process.stdout.isTTY === true,
  };
}

function drained(): Promise<void> {
  const { stdout } = process;
  return new Promise((resolve) => {
    const events = ['drain', 'error', 'close'] as const;
    const done = (): void => {
      for (const event of events) stdout.off(event, done);
      resolve();
    };
    for (const event of events) stdout.on(event, done);
  });
}
