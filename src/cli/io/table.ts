// SPDX-License-Identifier: Apache-2.0
// The commands by name, in the order of their names, as help lists them.

import type { Command } from './command.js';
import { aioFlush, breakAt, removeBreak, resume, sleep, waitBreak } from './debug.js';
import { alloc, discard, flush, info, length, map, truncate } from './image.js';
import { close, open, reopen } from './open.js';
import { abort, help, quit, sigraise } from './process.js';
import { aioRead, read, readv } from './read.js';
import { aioWrite, write, writev } from './write.js';

export const COMMANDS: readonly Command[] = [
  abort,
  aioFlush,
  aioRead,
  aioWrite,
  alloc,
  breakAt,
  close,
  discard,
  flush,
  help,
  info,
  length,
  map,
  open,
  quit,
  read,
  readv,
  removeBreak,
  reopen,
  resume,
  sigraise,
  sleep,
  truncate,
  waitBreak,
  write,
  writev,
];
