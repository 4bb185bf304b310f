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
  /** Writes what out() has kept, if it keeps anything. */
  flush?(): void;
  /** Drops what out() has kept, as a crash does. */
  forget?(): void;
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
  /** The message ends with ` (detail)`, in words of this program alone. */
  readonly detail: string | undefined;

  /** `because`: what is printed after the message, or the failure that says it. */
  constructor(message: string, status = 1, because: string | BlockError = '') {
    super(message);
    this.name = 'CliError';
    this.status = status;
    this.hint = typeof because === 'string' ? because : hintOf(because);
    this.holder = typeof because === 'string' ? undefined : because.context.holder;
    this.detail = typeof because === 'string' ? undefined : because.context.detail;
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
export function isForeign(program: Program): boolean {
  return program.name.startsWith('qemu-');
}

function holderLine(program: Program, holder: string | undefined): string {
  if (holder === undefined || isForeign(program)) return '';
  return `It is held by ${escapeControls(holder)}.\n`;
}

function shownMessage(program: Program, message: string, detail: string | undefined): string {
  if (detail === undefined || !isForeign(program)) return message;
  const end = ` (${detail})`;
  return message.endsWith(end) ? message.slice(0, -end.length) : message;
}

/** Prints a failure and gives the exit status; assertion failures pass through. */
export function reportFailure(program: Program, error: unknown, status = 1): number {
  if (error instanceof CliError) {
    const hint = `${error.hint}${holderLine(program, error.holder)}`;
    const message = shownMessage(program, error.message, error.detail);
    if (message !== '') report(program, message, hint);
    return error.status;
  }
  if (error instanceof BlockError) {
    const { holder, detail } = error.context;
    const message = shownMessage(program, error.message, detail);
    report(program, message, `${hintOf(error)}${holderLine(program, holder)}`);
    return status;
  }
  throw error;
}

/** The streams of this process. */
export function processProgram(name: string): Program {
  const terminal = process.stdout.isTTY === true;
  const err = (text: string): void => void process.stderr.write(text);
  if (!terminal && BUFFERED.has(name)) {
    return { name, err, terminal, drained: drainedOutput, ...bufferedOutput() };
  }
  return {
    name,
    out: (text) => void process.stdout.write(text),
    err,
    outBytes(bytes) {
      process.stdout.write(bytes);
      return process.stdout.writableLength === 0;
    },
    drained: drainedOutput,
    terminal,
  };
}

/** Writes what the streams of this process have kept. */
export let flushStreams = (): void => undefined;

/** Expected outputs of scripts have both streams in one, so in the order of the C library. */
const BUFFERED = new Set(['qemu-img', 'qemu-io']);
const STDIO_BYTES = 4096;

/** As stdio writes to a file or pipe: what is full goes out, the rest at the end. */
function bufferedOutput(): Required<Pick<Program, 'out' | 'outBytes' | 'flush' | 'forget'>> {
  let held = Buffer.alloc(0);
  const flush = (): void => {
    if (held.length > 0) process.stdout.write(held);
    held = Buffer.alloc(0);
  };
  const add = (bytes: Buffer): void => {
    const all = Buffer.concat([held, bytes]);
    const due = all.length > STDIO_BYTES ? all.length - (all.length % STDIO_BYTES) : 0;
    if (due > 0) process.stdout.write(all.subarray(0, due));
    held = all.subarray(due);
  };
  flushStreams = flush;
  process.once('exit', flush);
  return {
    out: (text) => add(Buffer.from(text)),
    outBytes(bytes) {
      flush();
      process.stdout.write(bytes);
      return process.stdout.writableLength === 0;
    },
    flush,
    forget() {
      held = Buffer.alloc(0);
    },
  };
}

const drainedOutput = (): Promise<void> | undefined =>
  process.stdout.writableNeedDrain ? drained() : undefined;

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
