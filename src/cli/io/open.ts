// SPDX-License-Identifier: Apache-2.0
// `open`, `close` and `reopen`: which file the commands work on, and in which modes.

import { BlockError } from '../../base/index.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { validate } from '../../schema/index.js';
import type { KeyvalTree } from '../../schema/index.js';
import { optionTree } from '../img/options/list.js';
import { cachePolicy } from '../img/session.js';
import { CommandFailure } from './command.js';
import type { Command } from './command.js';
import {
  aioMode,
  DEFAULT_CACHE,
  discardMode,
  joinedOptions,
  openFile,
  requireCacheMode,
} from './open-file.js';
import type { OpenFile } from './open-file.js';
import type { Shell } from './shell.js';

export const open: Command = {
  name: 'open',
  alias: 'o',
  usage: '[-rsCnkU] [-t cache] [-d discard] [-o options] [path]',
  about: 'open the file specified by path',
  words: [1, null],
  standsAlone: true,
  flags: [
    { letter: 'r', about: 'read-only' },
    { letter: 's', about: 'write to a temporary overlay' },
    { letter: 'C', about: 'copy on read' },
    { letter: 'n', about: 'the same as -t none' },
    { letter: 'U', about: 'open an image that others write to (with -r)' },
    { letter: 'k', about: 'the same as -i native' },
    { letter: 'i', value: 'mode', about: 'threads, native or io_uring; all are served alike' },
    {
      letter: 't',
      value: 'cache',
      about: 'none, writeback, writethrough, directsync or unsafe',
    },
    { letter: 'd', value: 'discard', about: 'ignore or unmap' },
    { letter: 'o', value: 'options', about: 'options of the driver: NAME=VALUE,...' },
  ],
  manual: ["'open -n -o driver=raw FILE' opens FILE as it is, past the host's cache."],
  async run(shell, given) {
    let cache = DEFAULT_CACHE;
    let unmap = true;
    let nativeAio = false;
    const lists: string[] = [];
    let options: KeyvalTree = {};
    const operands = given.read([0, 1], (letter, value) => {
      if (letter === 'n') cache = 'none';
      if (letter === 't') cache = requireCacheMode(value);
      if (letter === 'd') unmap = discardMode(value);
      if (letter === 'k') nativeAio = true;
      if (letter === 'i') nativeAio = aioMode(value);
      if (letter === 'o') lists.push(value);
    });
    if (shell.isOpen) throw new CliError("file open already, try 'help close'");
    const [name = null] = operands;
    for (const list of lists) options = joinedOptions(options, listed(list, name, shell.program));
    const request = {
      name,
      options,
      cache,
      unmap,
      nativeAio,
      readOnly: given.has('r'),
      snapshot: given.has('s'),
      copyOnRead: given.has('C'),
      forceShare: given.has('U'),
    };
    shell.file = await shell.wait(openFile(shell.session, request));
    warnOfProbing(shell, name);
  },
};

/** What contradicts itself is found when the file is opened. */
function listed(list: string, name: string | null, program: Program): KeyvalTree {
  try {
    return optionTree(list, program);
  } catch (error) {
    if (!(error instanceof BlockError) || !error.message.startsWith('Conflicting')) throw error;
    const start = name === null ? "can't open" : `can't open device ${name}`;
    throw new CliError(`${start}: ${error.message}`, 1, error);
  }
}

export const close: Command = {
  name: 'close',
  alias: 'c',
  usage: '',
  about: 'closes the current open file',
  words: [0, 0],
  async run(shell) {
    await shell.close();
  },
};

/** Raw was only guessed, which an image's writer could have brought about. */
export function warnOfProbing(shell: Shell, name: string | null): void {
  const { image, modes } = shell.file;
  if (!image.probedRaw || modes.readOnly) return;
  const margin = ' '.repeat(9);
  const storing = image.primary?.filename ?? image.filename;
  shell.program.err(
    `WARNING: Image format was not specified for '${name ?? storing}' and probing ` +
      `guessed raw.\n${margin}Automatically detecting the format is dangerous for raw images, ` +
      `write operations on block 0 will be restricted.\n${margin}Specify the 'raw' format ` +
      'explicitly to remove the restrictions.\n',
  );
}

export const reopen: Command = {
  name: 'reopen',
  usage: '[(-r|-w)] [-c cache] [-o options]',
  about: 'reopens an image with new options',
  words: [0, null],
  flags: [
    { letter: 'r', about: 'read-only' },
    { letter: 'w', about: 'read-write' },
    { letter: 'c', value: 'cache', about: 'another cache mode' },
    { letter: 'o', value: 'options', about: 'options of the driver: NAME=VALUE,...' },
  ],
  manual: ['Options that are not named stay as they are.'],
  async run(shell, given) {
    const { file } = shell;
    let cache: string | null = null;
    let access: boolean | null = null;
    let options: KeyvalTree = {};
    given.read([0, 0], (letter, value) => {
      if (letter === 'c') cache = requireCacheMode(value);
      if (letter === 'o') {
        options = joinedOptions(options, optionTree(value, shell.program));
      }
      if (letter !== 'r' && letter !== 'w') return;
      if (access !== null) throw new CliError('Only one -r/-w option may be given');
      access = letter === 'r';
    });
    if (access !== null && options['read-only'] !== undefined) {
      throw new CliError("Cannot set both -r/-w and 'read-only'");
    }
    if (cache !== null && options['cache'] !== undefined) {
      throw new CliError('Cannot set both -c and the cache options');
    }
    const modes = {
      cache: cache ?? file.modes.cache,
      readOnly: access ?? file.modes.readOnly,
    };
    await reopenFile(shell, { file, modes, options });
  },
};

interface ReopenRequest {
  readonly file: OpenFile;
  readonly modes: OpenFile['modes'];
  readonly options: KeyvalTree;
}

async function reopenFile(shell: Shell, request: ReopenRequest): Promise<void> {
  const { file, modes, options } = request;
  const policy = cachePolicy(modes.cache);
  if (policy === null) throw new CommandFailure(`Invalid cache option: ${modes.cache}`);
  const { direct = false, noFlush = false, writeThrough = false } = policy;
  if (modes.readOnly && !file.modes.readOnly) {
    await shell.wait(shell.idle());
    shell.stopWriting();
  }
  const change = {
    'read-only': modes.readOnly,
    cache: { direct, 'no-flush': noFlush },
    ...(await typedOptions(file, checkedCommon(options))),
  };
  await shell.wait(shell.session.graph.changeOptions(file.image, change, { writeThrough }));
  shell.file = { ...file, modes: { ...modes, readOnly: file.image.readOnly } };
}

const DETECT_ZEROES = ['off', 'on', 'unmap'];

/** What no driver declares. */
function checkedCommon(options: KeyvalTree): KeyvalTree {
  const { 'detect-zeroes': mode, cache } = options;
  const text = typeof mode === 'string' ? mode : '';
  if (mode !== undefined && !DETECT_ZEROES.includes(text)) {
    throw new BlockError('invalid-option', `invalid parameter value: ${text}`);
  }
  const modes = Object.keys(cache ?? {});
  const unknown = modes.find((name) => name !== 'direct' && name !== 'no-flush');
  if (unknown !== undefined) {
    throw new BlockError('invalid-option', `Cannot change the option 'cache.${unknown}'`);
  }
  return options;
}

/** Values as the driver's declaration has them; names that it has not are refused by the reopen. */
async function typedOptions(
  { image }: OpenFile,
  options: KeyvalTree,
): Promise<Readonly<Record<string, unknown>>> {
  const known = image.driver.reopenOptions ?? [];
  const own = Object.fromEntries(Object.entries(options).filter(([name]) => known.includes(name)));
  if (Object.keys(own).length === 0) return options;
  const { blockdevOptions } = await import('../../api/index.js');
  const children = Object.fromEntries(
    Object.entries(image.driver.children)
      .filter(([, { required }]) => required)
      .map(([name]) => [name, 'child']),
  );
  const { fitOwn } = await import('../img/options/fit.js');
  const fitted = fitOwn(image.driver.name, own);
  // The image says the format of its encryption itself.
  const { encrypt, ...checked } = fitted;
  const given = { ...children, ...checked, driver: image.driver.name };
  const typed = validate(blockdevOptions, given, '', 'keyval') as Record<string, unknown>;
  if (encrypt !== undefined) typed['encrypt'] = encrypt;
  const values = Object.fromEntries(Object.keys(own).map((name) => [name, typed[name]]));
  return { ...options, ...values };
}
