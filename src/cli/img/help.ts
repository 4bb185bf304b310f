// SPDX-License-Identifier: Apache-2.0
// Help of `blockwright img`: every option that a verb accepts, from the verb's own table.

import { driverOptions } from '../../drivers/options-catalog.js';
import type { OptionSpec } from '../getopt.js';
import type { Program } from '../program.js';
import { loadVerb, VERB_NAMES } from './verbs.js';

const OPERANDS: Readonly<Record<string, string>> = {
  amend: 'FILE',
  bench: 'FILE',
  bitmap: 'FILE BITMAP',
  check: 'FILE',
  commit: 'FILE',
  compare: 'FILE1 FILE2',
  convert: 'FILE [FILE...] TARGET',
  create: 'FILE [SIZE]',
  dd: '[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE',
  info: 'FILE',
  map: 'FILE',
  measure: '[FILE]',
  rebase: 'FILE',
  resize: 'FILE [+|-]SIZE',
  snapshot: 'FILE',
};

const VALUES: Readonly<Record<string, string>> = {
  apply: 'SNAPSHOT',
  create: 'SNAPSHOT',
  delete: 'SNAPSHOT',
  snapshot: 'SNAPSHOT',
  format: 'FORMAT',
  'second-format': 'FORMAT',
  'output-format': 'FORMAT',
  'backing-format': 'FORMAT',
  backing: 'FILE',
  output: 'human|json',
  progress: 'percent|json|none',
  object: 'OBJECT',
  options: 'NAME=VALUE,...',
  cache: 'CACHE',
  'source-cache': 'CACHE',
  sparse: 'SIZE',
  rate: 'BYTES',
  parallel: 'COUNT',
  start: 'OFFSET',
  max: 'LENGTH',
  size: 'SIZE',
  base: 'FILE',
  count: 'COUNT',
  depth: 'COUNT',
  'flush-interval': 'COUNT',
  aio: 'threads|native|io_uring',
  offset: 'OFFSET',
  pattern: 'BYTE',
  'buffer-size': 'SIZE',
  step: 'SIZE',
  merge: 'BITMAP',
  granularity: 'SIZE',
  preallocation: 'off|metadata|falloc|full',
  secret: 'ID',
  keyslot: 'NUMBER',
};

const LEGEND = `
  -f first or only image format (probed unless given), -F second or backing format,
  -O output format: raw, qcow2 or luks
  -b, -B backing file   -u do not look at the backing file   -o options of the new image
  -b (commit) image of the chain that is committed to   -d keep what is committed
  -t, -T cache mode of target and source: none, writeback, writethrough, directsync, unsafe
  -U open an image that others write to   -q print nothing but errors
  -p progress in percent   --progress json  one JSON object a line
  -c compress   -n the target exists already   --target-is-zero  and reads as zeroes
  -S zeroes worth a hole (4k; 0 = write everything)   -r bytes per second
  -m batches in flight   -W accepted: batches always complete out of order
  -s (compare) sizes and allocation must agree too
  luks: BACKUP is made new; --force restores over a header that is broken or of another image;
  test-passphrase ends with 0 if the secret opens a keyslot, with 2 if it opens none
  Sizes take the suffixes k, M, G, T, P and E (powers of 1024).
  SIGUSR1 prints the progress of a running verb.
`;

export async function helpText(program: Program): Promise<string> {
  let text = `usage: ${program.name} [-h | -V] COMMAND [OPTIONS] FILE...\n`;
  text += 'Disk image utility\n\nCommands:\n';
  for (const name of VERB_NAMES) {
    const verb = await loadVerb(name);
    const own = { options: verb?.options ?? [], operands: OPERANDS[name] ?? '' };
    for (const [command, { options, operands }] of Object.entries(verb?.commands ?? { '': own })) {
      const words = [name, command, ...options.map(optionText), operands];
      text += `  ${words.filter((word) => word !== '').join(' ')}\n`;
    }
  }
  return `${text}${LEGEND}\nFormats: ${Object.keys(driverOptions).join(' ')}\n`;
}

function optionText(spec: OptionSpec): string {
  const name = spec.short === undefined ? `--${spec.long ?? ''}` : `-${spec.short}`;
  return spec.argument === true ? `[${name} ${VALUES[spec.name] ?? 'VALUE'}]` : `[${name}]`;
}
