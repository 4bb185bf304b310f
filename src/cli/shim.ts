// SPDX-License-Identifier: Apache-2.0
// `blockwright shim DIR`: executables of the reference's names in DIR that run Blockwright, so
// that a script uses it by putting DIR first in its PATH. Only files that an earlier shim wrote
// are replaced; all names are looked at before anything is written.

import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageFile } from '../host/index.js';
import { CliError, reportFailure } from './program.js';
import type { Program } from './program.js';

const COMMANDS: Readonly<Record<string, string>> = {
  'qemu-img': 'img',
  'qemu-io': 'io',
  'qemu-storage-daemon': 'storage-daemon',
};

const MARK = '# Written by `blockwright shim`; it may overwrite this file.';

export async function runShim(args: readonly string[], program: Program): Promise<number> {
  try {
    return await Promise.resolve(writeShim(args, program));
  } catch (error) {
    if (error instanceof Error && 'code' in error) {
      return reportFailure(program, new CliError(error.message));
    }
    return reportFailure(program, error);
  }
}

function writeShim(args: readonly string[], program: Program): number {
  const [directory] = args;
  if (directory === '-h' || directory === '--help') {
    program.out('usage: blockwright shim DIR\n');
    return 0;
  }
  if (directory === undefined || args.length !== 1 || directory.startsWith('-')) {
    throw new CliError('Expecting one directory');
  }
  mkdirSync(directory, { recursive: true });
  const names = Object.keys(COMMANDS);
  for (const name of names) refuseForeign(join(directory, name));
  for (const name of names) {
    const path = join(directory, name);
    // Renamed into place: a script that runs it at this moment sees the old or the new one.
    const temporary = `${path}.${process.pid}.new`;
    writeFileSync(temporary, scriptText(name), { flag: 'wx' });
    chmodSync(temporary, 0o755);
    renameSync(temporary, path);
    program.out(`${path}\n`);
  }
  return 0;
}

function refuseForeign(path: string): void {
  if (existsSync(path) && !readFileSync(path, 'utf8').includes(MARK)) {
    throw new CliError(`'${path}' exists and was not written by blockwright shim`);
  }
}

function scriptText(name: string): string {
  const main = packageFile('dist/cli/blockwright.js');
  const command = `${quoted(process.execPath)} ${quoted(main)} --as ${name} ${COMMANDS[name]}`;
  return `#!/bin/sh\n${MARK}\nexec ${command} "$@"\n`;
}

/** As one word of sh. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
