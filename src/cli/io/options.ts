// SPDX-License-Identifier: Apache-2.0
// The command line of `blockwright io`: one table for reading it and for its help.

import type { OptionSpec } from '../getopt.js';
import type { Program } from '../program.js';

interface IoOption extends OptionSpec {
  /** Name of its value in the help. */
  readonly value?: string;
  readonly about: string;
}

export const OPTIONS: readonly IoOption[] = [
  {
    name: 'cmd',
    short: 'c',
    long: 'cmd',
    argument: true,
    value: 'COMMAND',
    about: 'run this command; as many as wanted, in order',
  },
  {
    name: 'format',
    short: 'f',
    long: 'format',
    argument: true,
    value: 'FORMAT',
    about: 'image format (probed unless given)',
  },
  { name: 'read-only', short: 'r', long: 'read-only', about: 'open read-only' },
  { name: 'snapshot', short: 's', long: 'snapshot', about: 'write to a temporary overlay' },
  { name: 'nocache', short: 'n', long: 'nocache', about: 'the same as -t none' },
  {
    name: 'cache',
    short: 't',
    long: 'cache',
    argument: true,
    value: 'MODE',
    about: 'none, writeback, writethrough (the default), directsync or unsafe',
  },
  {
    name: 'discard',
    short: 'd',
    long: 'discard',
    argument: true,
    value: 'MODE',
    about: 'unmap (the default): discards reach the file; ignore',
  },
  {
    name: 'aio',
    short: 'i',
    long: 'aio',
    argument: true,
    value: 'MODE',
    about: 'threads, native or io_uring; all are served alike',
  },
  { name: 'native-aio', short: 'k', long: 'native-aio', about: 'the same as -i native' },
  { name: 'copy-on-read', short: 'C', long: 'copy-on-read', about: 'keep what is read from below' },
  { name: 'misalign', short: 'm', long: 'misalign', about: 'accepted: memory needs no alignment' },
  { name: 'share', short: 'U', long: 'force-share', about: 'others may write to it (with -r)' },
  { name: 'image-opts', long: 'image-opts', about: 'FILE is a list of options: NAME=VALUE,...' },
  {
    name: 'object',
    long: 'object',
    argument: true,
    value: 'OBJECT',
    about: 'make an object that the image refers to: throttle-group,id=ID,...; help lists them',
  },
  {
    name: 'trace',
    short: 'T',
    long: 'trace',
    argument: true,
    value: 'PATTERN',
    about: 'accepted: there are no trace events',
  },
  { name: 'no-timing', long: 'no-timing', about: 'print no times and rates: stable output' },
  { name: 'help', short: 'h', long: 'help', about: 'this help' },
  { name: 'version', short: 'V', long: 'version', about: 'the version' },
];

const NAME_COLUMNS = 26;

export function helpText(program: Program): string {
  const lines = OPTIONS.map(({ short, long, value, about }) => {
    const names = short === undefined ? `--${long ?? ''}` : `-${short}, --${long ?? ''}`;
    const full = value === undefined ? names : `${names} ${value}`;
    return `  ${full.padEnd(NAME_COLUMNS)} ${about}\n`;
  });
  return (
    `usage: ${program.name} [OPTION...] [-c COMMAND]... [FILE]\n` +
    'Reads, writes and pokes at a disk image. Without -c, commands come from standard input.\n\n' +
    `${lines.join('')}\n` +
    `The commands: ${program.name} -c help\n`
  );
}
