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

  constructor(message: string, status = 1, hint = '') {
    super(message);
    this.name = 'CliError';
    this.status = status;
    this.hint = hint;
  }
}

/** `NAME: message`, one line, whatever bytes the message holds. */
export function report(program: Program, message: string, hint = ''): void {
  program.err(`${program.name}: ${escapeControls(message)}\n${hint}`);
}

export function hintOf(error: BlockError): string {
  const { hint, holder } = error.context;
  // A node of this program that nobody named tells nothing.
  const isOther = holder !== undefined && !holder.startsWith("node '#");
  const lines = [hint, isOther ? `It is held by ${holder}.` : undefined];
  const known = lines.filter((line) => line !== undefined);
  return known.map((line) => `${escapeControls(line)}\n`).join('');
}

/** Prints a failure and gives the exit status; assertion failures pass through. */
export function reportFailure(program: Program, error: unknown, status = 1): number {
  if (error instanceof CliError) {
    if (error.message !== '') report(program, error.message, error.hint);
    return error.status;
  }
  if (error instanceof BlockError) {
    report(program, error.message, hintOf(error));
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
    terminal: process.stdout.isTTY === true,
  };
}
