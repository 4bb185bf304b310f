// SPDX-License-Identifier: Apache-2.0
// Files and named pipes as byte streams, for character devices.
//
// A pipe is opened for both directions, so that opening never waits for the other side and losing
// that side is no end of the stream.

import { closeSync, constants, createReadStream, createWriteStream, fstatSync } from 'node:fs';
import { openSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';

import { BlockError, errnoText, kindOfErrno } from '../base/index.js';

const { O_RDWR, O_WRONLY, O_RDONLY, O_CREAT, O_TRUNC, O_APPEND, O_NONBLOCK } = constants;

/** Creates or empties the file, or appends to it. Throws naming the path. */
export function openCharOutput(path: string, append: boolean): Writable {
  const descriptor = openPlain(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC));
  return createWriteStream(path, { fd: descriptor });
}

export function openCharInput(path: string): Readable {
  return createReadStream(path, { fd: openPlain(path, O_RDONLY) });
}

/** The pipes `path.in` and `path.out` where both are there, else `path` in both directions. */
export function openCharPipe(path: string): { input: Readable; output: Writable } {
  // A descriptor for both directions that were read, too, would hear what it says itself.
  const input = tryPipe(`${path}.in`, 'readable');
  const output = input === null ? null : tryPipe(`${path}.out`, 'writable');
  if (input !== null && output !== null) return { input, output };
  input?.destroy();
  return { input: pipeStream(path, 'readable'), output: pipeStream(path, 'writable') };
}

type Direction = 'readable' | 'writable';

function tryPipe(path: string, direction: Direction): Socket | null {
  try {
    return pipeStream(path, direction);
  } catch (error) {
    if (error instanceof BlockError && error.errno === 'ENOENT') return null;
    throw error;
  }
}

function pipeStream(path: string, direction: Direction): Socket {
  const descriptor = open(path, O_RDWR | O_NONBLOCK);
  if (!fstatSync(descriptor).isFIFO()) {
    closeSync(descriptor);
    throw new BlockError('unsupported', `Could not open '${path}': not a pipe`, { path });
  }
  const readable = direction === 'readable';
  return new Socket({ fd: descriptor, readable, writable: !readable });
}

/** Opening a pipe waits for its other side, and the whole program with it. */
function openPlain(path: string, flags: number): number {
  if (!isPipe(path)) return open(path, flags);
  const text = `Could not open '${path}': it is a pipe, which the backend 'pipe' is for`;
  throw new BlockError('unsupported', text, { path });
}

/** What is wrong with the path is told when it is opened. */
function isPipe(path: string): boolean {
  try {
    return statSync(path).isFIFO();
  } catch {
    return false;
  }
}

function open(path: string, flags: number): number {
  if (path.includes('\0')) {
    const text = `Could not open '${path}': the name holds a zero byte`;
    throw new BlockError('invalid-option', text, { path });
  }
  try {
    return openSync(path, flags, 0o666);
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? 'EIO';
    const text = `Could not open '${path}': ${errnoText(errno)}`;
    throw new BlockError(kindOfErrno(errno), text, { path, errno, cause: error });
  }
}
