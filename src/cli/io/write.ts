// SPDX-License-Identifier: Apache-2.0
// `write`, `writev` and `aio_write`: patterns, the content of a file, or zeroes into the image.

import { readFileSync } from 'node:fs';

import { BlockError, errnoText, Permission, settle, toBlockError } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import { RequestFlag } from '../../block/index.js';
import { CommandFailure } from './command.js';
import type { Command, GivenWords } from './command.js';
import { lengthOf, lengthsOf, patternOf, requireSectors, sizeOf } from './numbers.js';
import {
  ASYNC_MANUAL,
  checkPattern,
  COUNTS,
  DEFAULT_FILL,
  FILL,
  FUA,
  injectsInvalid,
  INVALID,
  perform,
  QUIET,
  requireInside,
  submit,
  UNMAP,
  ZEROES,
} from './requests.js';
import type { Timed } from './requests.js';
import type { Shell } from './shell.js';
import { writeVmState } from './vm-state.js';

interface WriteRequest {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
  /** Bytes repeated over the length; null = zeroes that are not given as bytes. */
  readonly content: Uint8Array | null;
  /** To the VM state, not to the disk. */
  readonly vmState?: boolean;
}

function timedWrite(shell: Shell, request: WriteRequest): Timed {
  const { name, offset, length, flags, content } = request;
  return {
    verb: 'wrote',
    name,
    offset,
    length,
    begin() {
      if (request.vmState === true && content !== null) {
        return writeVmState(shell, offset, repeated(content, length));
      }
      requireInside(shell, offset, length);
      const { backend } = shell.file;
      if ((flags & RequestFlag.compressed) !== 0) return writeCompressed(shell, request);
      if (content === null) return backend.writeZeroes(offset, length, flags);
      return backend.write(offset, repeated(content, length), flags);
    },
  };
}

function repeated(content: Uint8Array, length: number): Uint8Array {
  const buffer = Buffer.alloc(length);
  return content.length === 1 ? buffer.fill(content[0] ?? 0) : buffer.fill(content);
}

/** As in the reference, nothing that is stored already is replaced by a compressed cluster. */
function writeCompressed(shell: Shell, request: WriteRequest): Eventually<void> {
  const { offset, length, flags, content } = request;
  const { backend, node } = shell.file;
  const cluster = node.info.clusterSize ?? 1;
  const reachesEnd = offset + length === node.length;
  const whole = offset % cluster === 0 && (length % cluster === 0 || reachesEnd);
  return settle(node.blockStatus(offset, Math.max(1, length), false), (status) => {
    const isStored = status.hostOffset !== undefined || status.compressed;
    // A data file takes no compressed cluster anyway, which the driver says.
    const isOutside = node.children.has('data-file');
    if (whole && isStored && !isOutside && node.driver.name === 'qcow2') {
      throw new BlockError('io', errnoText('EIO'), { offset });
    }
    if (content === null) return backend.writeZeroes(offset, length, flags);
    return backend.write(offset, repeated(content, length), flags);
  });
}

function flagsOf(given: GivenWords): number {
  let flags: number = RequestFlag.none;
  if (given.has('f')) flags |= RequestFlag.fua;
  if (given.has('u')) flags |= RequestFlag.mayUnmap;
  if (given.has('n')) flags |= RequestFlag.noFallback;
  if (given.has('c')) flags |= RequestFlag.compressed;
  return flags;
}

function fillOf(given: GivenWords): Uint8Array {
  const pattern = given.value('P');
  return Uint8Array.of(pattern === undefined ? DEFAULT_FILL : patternOf(pattern));
}

function fileContent(path: string): Uint8Array {
  let content: Uint8Array;
  try {
    content = readFileSync(path);
  } catch (error) {
    throw new CommandFailure(`${path}: ${errnoText(toBlockError(error).errno)}`, 'err');
  }
  if (content.length === 0) throw new CommandFailure(`${path}: file is empty`, 'err');
  return content;
}

function requireWith(given: GivenWords, letter: string): void {
  if (given.has(letter) && !given.has('z')) {
    throw new CommandFailure(`-${letter} requires -z to be specified`);
  }
}

function refuseContradictions(given: GivenWords): void {
  const isSpecial = given.has('b') || given.has('c');
  if (given.has('b') && given.has('z')) {
    throw new CommandFailure('-b and -z cannot be specified at the same time');
  }
  if (given.has('f') && isSpecial) {
    throw new CommandFailure('-f and -b or -c cannot be specified at the same time');
  }
  requireWith(given, 'n');
  requireWith(given, 'u');
  if (['z', 'P', 's'].filter((letter) => given.has(letter)).length > 1) {
    throw new CommandFailure('Only one of -z, -P, and -s can be specified at the same time');
  }
}

export const write: Command = {
  name: 'write',
  alias: 'w',
  usage: '[-bcCfnquz] [-P pattern | -s source_file] off len',
  about: 'writes a number of bytes at a specified offset',
  words: [2, null],
  permissions: Permission.write,
  flags: [
    { letter: 'b', about: 'write the VM state instead of the disk' },
    { letter: 'c', about: 'store one cluster compressed' },
    FUA,
    { letter: 'n', about: 'with -z: fail where zeroes would have to be written as bytes' },
    { letter: 'p', about: 'accepted and ignored' },
    FILL,
    { letter: 's', value: 'source_file', about: 'write the bytes of this file, over and over' },
    COUNTS,
    QUIET,
    UNMAP,
    ZEROES,
  ],
  manual: [
    'Writes in one request; offset and length need no alignment, but with -c.',
    "'write -P 7 512 1k' fills 1 KiB from offset 512 with the byte 7.",
  ],
  async run(shell, given) {
    given.read([2, 2], checkPattern);
    refuseContradictions(given);
    const offset = sizeOf(given.operand(0));
    const text = given.operand(1);
    const length = given.has('n') ? sizeOf(text) : lengthOf(text, ' without -n');
    if (given.has('b') || given.has('c')) {
      requireSectors('offset', offset);
      requireSectors('count', length);
    }
    const source = given.value('s');
    const bytes = source === undefined ? fillOf(given) : fileContent(source);
    const content = given.has('z') ? null : bytes;
    const where = { name: 'write', offset, length, vmState: given.has('b') };
    const request = { ...where, flags: flagsOf(given), content };
    await perform(shell, given, timedWrite(shell, request));
  },
};

function vectored(given: GivenWords, name: string): WriteRequest {
  const offset = sizeOf(given.operand(0));
  const length = lengthsOf(given.read([2, null]).slice(1)).reduce((sum, each) => sum + each, 0);
  return { name, offset, length, flags: flagsOf(given), content: fillOf(given) };
}

export const writev: Command = {
  name: 'writev',
  usage: '[-Cfq] [-P pattern] off len [len..]',
  about: 'writes a number of bytes at a specified offset',
  words: [2, null],
  permissions: Permission.write,
  flags: [FILL, COUNTS, FUA, QUIET],
  manual: ['The lengths are those of several buffers of one request.'],
  async run(shell, given) {
    given.read([2, null], checkPattern);
    await perform(shell, given, timedWrite(shell, vectored(given, 'writev')));
  },
};

export const aioWrite: Command = {
  name: 'aio_write',
  usage: '[-Cfiquz] [-P pattern] off len [len..]',
  about: 'asynchronously writes a number of bytes',
  words: [2, null],
  permissions: Permission.write,
  flags: [FILL, COUNTS, FUA, INVALID, QUIET, UNMAP, ZEROES],
  manual: ASYNC_MANUAL,
  run(shell, given) {
    if (injectsInvalid(shell, given, 'write')) return;
    const operands = given.read([2, null]);
    if (given.has('z') && operands.length !== 2) {
      throw new CommandFailure('-z supports only a single length parameter');
    }
    requireWith(given, 'u');
    submit(shell, given, timedWrite(shell, asyncWrite(given)));
  },
};

function asyncWrite(given: GivenWords): WriteRequest {
  if (!given.has('z')) return vectored(given, 'aio_write');
  const offset = sizeOf(given.operand(0));
  const length = lengthOf(given.operand(1));
  return { name: 'aio_write', offset, length, flags: flagsOf(given), content: null };
}
