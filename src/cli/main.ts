#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// The program `blockwright`, bundled to dist/cli/blockwright.js. Nothing is loaded before it is
// known to be needed. Run through the shim, `--as NAME` (first, and only written by the shim)
// puts that program's name in messages.

import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';

import { flushStreams, processProgram, report } from './program.js';
import { USAGE } from './usage.js';

async function main(args: readonly string[]): Promise<number> {
  let name: string | null = null;
  let words = args;
  if (words[0] === '--as' && words[1] !== undefined) {
    name = words[1];
    words = words.slice(2);
  }
  if (!isText(words)) {
    report(processProgram(name ?? 'blockwright'), 'Arguments that are not UTF-8 are not supported');
    return 1;
  }
  const [command, ...rest] = words;
  switch (command) {
    case 'img': {
      const { runImg } = await import('./img/index.js');
      return runImg(rest, processProgram(name ?? 'blockwright img'));
    }
    case 'io': {
      const { runIo } = await import('./io/index.js');
      return runIo(rest, processProgram(name ?? 'blockwright io'));
    }
    case 'storage-daemon': {
      const { Detached, runStorageDaemon, SIGNALS } = await import('./storage-daemon/index.js');
      // One that comes when the daemon has ended must not look like a crash of it.
      for (const signal of SIGNALS) process.on(signal, () => undefined);
      name ??= 'blockwright storage-daemon';
      const detached = Detached.enter(name);
      if (detached === null) return runStorageDaemon(rest, processProgram(name));
      complain = (text) => detached.program.err(text);
      return runStorageDaemon(rest, detached.program, detached);
    }
    case 'shim': {
      const { runShim } = await import('./shim.js');
      return runShim(rest, processProgram('blockwright shim'));
    }
    case 'docs': {
      const { runDocs } = await import('./docs.js');
      return runDocs(rest, processProgram('blockwright docs'));
    }
    case 'tour': {
      const { runTour } = await import('./tour.js');
      // It only shows things: without a reader it has nothing to do.
      process.stdout.once('error', () => process.exit(141));
      return runTour(rest);
    }
    case 'bench': {
      const { runBench } = await import('./bench.js');
      return runBench(rest);
    }
    default:
      return general(command);
  }
}

/** Node replaces what is no UTF-8 by U+FFFD, which would be the name of another file. */
function isText(words: readonly string[]): boolean {
  if (!words.some((word) => word.includes('\ufffd'))) return true;
  try {
    return isUtf8(readFileSync('/proc/self/cmdline'));
  } catch {
    return true;
  }
}

async function general(command: string | undefined): Promise<number> {
  if (command === '-h' || command === '--help' || command === 'help') {
    process.stdout.write(USAGE);
    return 0;
  }
  if (command === '-V' || command === '--version') {
    const { versionText } = await import('./version.js');
    process.stdout.write(versionText('blockwright'));
    return 0;
  }
  const text = command === undefined ? 'Not enough arguments' : `Command not found: ${command}`;
  report(processProgram('blockwright'), text, "Try 'blockwright --help' for more information\n");
  return 1;
}

let isOutputLost = false;

/**
 * What nobody reads or can be told ends nothing: an image is written to its end, and a daemon
 * serves its other clients. Output that could not be stored shows in the exit status.
 */
function noteLoss(error: NodeJS.ErrnoException | null | undefined): void {
  if (error !== null && error !== undefined && error.code !== 'EPIPE') isOutputLost = true;
}

process.stdout.on('error', noteLoss);
process.stderr.on('error', () => undefined);

/** Where a crash is told. */
let complain = (text: string): void => void process.stderr.write(text);

/** A programmer's mistake: one line, and the stack for whoever asks for it. */
function crash(error: unknown): void {
  const isDebug = process.env['BLOCKWRIGHT_DEBUG'] === '1' && error instanceof Error;
  const [line] = (error instanceof Error ? error.message : String(error)).split('\n');
  complain(`blockwright: internal error: ${line}\n`);
  if (isDebug) complain(`${error.stack}\n`);
  process.exit(1);
}

process.on('uncaughtException', crash);

async function run(): Promise<void> {
  const status = await main(process.argv.slice(2));
  flushStreams();
  process.stdout.write('', (error) => {
    noteLoss(error);
    process.exit(status === 0 && isOutputLost ? 1 : status);
  });
}

run().catch(crash);
