// SPDX-License-Identifier: Apache-2.0
// The `-o` options of `img create` and `img convert`: names, types and defaults by format, in the
// order in which the reference prints them, and their translation to blockdev-create.
//
// Text is checked here by type only; what a value means is checked by the driver's create().

import { BlockError, parseSize } from '../../../base/index.js';
import type { KeyvalTree } from '../../../schema/index.js';
import { CliError } from '../../program.js';

export const PREALLOCATIONS: readonly string[] = ['off', 'metadata', 'falloc', 'full'];

type OptionType = 'string' | 'bool' | 'size' | 'number';

interface CreateOption {
  readonly name: string;
  readonly type: OptionType;
  readonly help: string;
  readonly fallback?: string;
  /** Member of blockdev-create; absent: a hint, which changes nothing. */
  readonly member?: string;
}

export interface CreateFormat {
  readonly name: 'raw' | 'qcow2' | 'luks' | 'file';
  readonly backing: boolean;
  readonly options: readonly CreateOption[];
}

const SIZE: CreateOption = {
  name: 'size',
  type: 'size',
  help: 'Bytes that the guest sees',
  member: 'size',
};

/**
 * Hints for btrfs and XFS: accepted and without effect, as in the reference on any other file
 * system.
 */
const NOCOW: CreateOption = { name: 'nocow', type: 'bool', help: '' };
const EXTENT_SIZE: CreateOption = {
  name: 'extent_size_hint',
  type: 'size',
  help: '',
};

const LUKS_MEMBERS = [
  ['cipher-alg', 'Cipher and length of its key, as in aes-256'],
  ['cipher-mode', 'How the cipher is used: xts, cbc or ecb'],
  ['ivgen-alg', 'Initial vectors: plain64, plain or essiv'],
  ['ivgen-hash-alg', 'Digest of essiv'],
  ['hash-alg', 'Digest by which keys come of passwords'],
  ['iter-time', 'Milliseconds that trying a password may take'],
] as const;

const QCOW2_OPTIONS: readonly CreateOption[] = [
  {
    name: 'encryption',
    type: 'bool',
    help: 'Encrypt by the older method, which encrypt.format=aes also names',
    member: 'encryption',
  },
  encryptOption('format', 'Encrypt: luks, or aes by the older method'),
  encryptOption('key-secret', 'Id of the secret that holds the password'),
  ...LUKS_MEMBERS.map(([name, help]) => encryptOption(name, help)),
  {
    name: 'cluster_size',
    type: 'size',
    help: 'Bytes of a cluster',
    fallback: '65536',
    member: 'cluster-size',
  },
  {
    name: 'extended_l2',
    type: 'bool',
    help: 'Divide clusters into 32 parts',
    fallback: 'off',
    member: 'extended-l2',
  },
  {
    name: 'preallocation',
    type: 'string',
    help: 'What is reserved at once: off, metadata, falloc or full',
    member: 'preallocation',
  },
  {
    name: 'compression_type',
    type: 'string',
    help: 'How clusters are compressed: zlib or zstd',
    fallback: 'zlib',
    member: 'compression-type',
  },
  SIZE,
  {
    name: 'compat',
    type: 'string',
    help: '0.10 for version 2, 1.1 for version 3',
    member: 'version',
  },
  {
    name: 'backing_file',
    type: 'string',
    help: 'Image that is read where this one holds nothing',
    member: 'backing-file',
  },
  {
    name: 'backing_fmt',
    type: 'string',
    help: 'Format of the backing file',
    member: 'backing-fmt',
  },
  {
    name: 'data_file',
    type: 'string',
    help: 'File that holds the guest data',
    member: 'data-file',
  },
  {
    name: 'data_file_raw',
    type: 'bool',
    help: 'Keep the data file readable as a raw image',
    member: 'data-file-raw',
  },
  {
    name: 'lazy_refcounts',
    type: 'bool',
    help: 'Write reference counts late',
    fallback: 'off',
    member: 'lazy-refcounts',
  },
  {
    name: 'refcount_bits',
    type: 'number',
    help: 'Bits of a reference count: 1, 2, 4 to 64',
    fallback: '16',
    member: 'refcount-bits',
  },
  NOCOW,
  EXTENT_SIZE,
];

function encryptOption(name: string, help: string): CreateOption {
  const full = `encrypt.${name}`;
  return { name: full, type: name === 'iter-time' ? 'number' : 'string', help, member: full };
}

const RAW_OPTIONS: readonly CreateOption[] = [
  SIZE,
  NOCOW,
  {
    name: 'preallocation',
    type: 'string',
    help: 'What is reserved at once: off, falloc or full',
    member: 'preallocation',
  },
  EXTENT_SIZE,
];

const LUKS_OPTIONS: readonly CreateOption[] = [
  SIZE,
  luksOption('key-secret', 'Id of the secret that holds the password'),
  ...LUKS_MEMBERS.map(([name, help]) => luksOption(name, help)),
  {
    name: 'detached-header',
    type: 'bool',
    help: 'The image is a header alone, of a payload in another file',
    member: 'detached-header',
  },
  NOCOW,
  { name: 'preallocation', type: 'string', help: '', member: 'preallocation' },
  EXTENT_SIZE,
];

function luksOption(name: string, help: string): CreateOption {
  return { name, type: name === 'iter-time' ? 'number' : 'string', help, member: name };
}

const KEYSLOT_OPTIONS: readonly CreateOption[] = [
  { name: 'state', type: 'string', help: 'active adds a password, inactive erases' },
  { name: 'new-secret', type: 'string', help: 'Id of the secret with the password that is added' },
  { name: 'old-secret', type: 'string', help: 'Id of the secret whose keyslots are erased' },
  { name: 'keyslot', type: 'number', help: 'Number of the keyslot that is meant' },
  { name: 'iter-time', type: 'number', help: 'Milliseconds that trying a password may take' },
];

const AMENDABLE = new Set([
  'size', 'compat', 'backing_file', 'backing_fmt', 'lazy_refcounts', 'refcount_bits',
]);

/** What can be changed of a qcow2 image that exists. */
const QCOW2_AMENDMENTS: CreateFormat = {
  name: 'qcow2',
  backing: true,
  options: [
    ...QCOW2_OPTIONS.filter(({ name }) => AMENDABLE.has(name)),
    { name: 'data_file', type: 'string', help: 'File that holds the guest data' },
    {
      name: 'data_file_raw',
      type: 'bool',
      help: 'Keep the data file readable as a raw image',
    },
    ...KEYSLOT_OPTIONS.map((each) => ({ ...each, name: `encrypt.${each.name}` })),
  ],
};

export const AMEND_FORMATS: readonly CreateFormat[] = [
  QCOW2_AMENDMENTS,
  { name: 'luks', backing: false, options: KEYSLOT_OPTIONS },
];

export const CREATE_FORMATS: readonly CreateFormat[] = [
  { name: 'qcow2', backing: true, options: QCOW2_OPTIONS },
  { name: 'luks', backing: false, options: LUKS_OPTIONS },
  { name: 'raw', backing: false, options: RAW_OPTIONS },
  { name: 'file', backing: false, options: RAW_OPTIONS },
];

export function createFormat(name: string): CreateFormat | null {
  return CREATE_FORMATS.find((each) => each.name === name) ?? null;
}

export type CreateMembers = Record<string, string | number | boolean>;

const SIZE_HINT =
  'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
  'and exabytes, respectively.\n';

/** Values by name, as text in normal form (bytes, `on`/`off`). */
export class OptionValues {
  readonly format: CreateFormat;
  readonly #values = new Map<string, string>();

  constructor(format: CreateFormat) {
    this.format = format;
  }

  /** Adds one `-o` argument. */
  parse(text: string): void {
    if (text === '' || /^,|(?<!,),$/.test(text)) {
      throw new CliError(`Invalid option list: ${text}`);
    }
    for (const piece of splitCommas(text)) {
      const equals = piece.indexOf('=');
      if (equals >= 0) this.set(piece.slice(0, equals), piece.slice(equals + 1));
      else this.#flag(piece);
    }
  }

  #flag(name: string): void {
    const negative = name.startsWith('no') && this.#option(name) === undefined;
    if (negative) this.set(name.slice(2), 'off');
    else this.set(name, 'on');
  }

  #option(name: string): CreateOption | undefined {
    return this.format.options.find((each) => each.name === name);
  }

  set(name: string, text: string): void {
    const option = this.#option(name);
    if (option === undefined) throw invalid(`Invalid parameter '${name}'`);
    this.#values.set(name, normalize(option, text));
  }

  get(name: string): string | null {
    return this.#values.get(name) ?? null;
  }

  get size(): number | null {
    const text = this.get('size');
    return text === null ? null : Number(text);
  }

  /** The options that name a secret, as an image that was made with them is opened. */
  secrets(): KeyvalTree {
    const own = this.get('key-secret');
    const encrypt = this.get('encrypt.key-secret');
    return {
      ...(own === null ? {} : { 'key-secret': own }),
      ...(encrypt === null ? {} : { encrypt: { 'key-secret': encrypt } }),
    };
  }

  get isEncrypted(): boolean {
    return this.get('encryption') === 'on' || this.get('encrypt.format') !== null;
  }

  /** `name=value` of everything given or with a default, in the reference's order. */
  describe(): string {
    const parts: string[] = [];
    for (const { name, fallback } of this.format.options) {
      const value = this.get(name) ?? fallback;
      if (value !== undefined) parts.push(` ${name}=${value.replaceAll(',', ',,')}`);
    }
    return parts.join('');
  }

  /** Members for the driver's create(), `size` and `file` aside. */
  members(): CreateMembers {
    const result: CreateMembers = {};
    for (const option of this.format.options) {
      const value = this.get(option.name);
      if (value === null || option.name === 'size') continue;
      if (option.member === undefined) continue;
      result[option.member] = memberValue(option, value);
    }
    return result;
  }
}

function memberValue(option: CreateOption, value: string): string | number | boolean {
  if (option.name === 'compat') return version(value);
  if (option.type === 'bool') return value === 'on';
  if (option.type === 'number') return memberNumber(option, BigInt(value));
  return option.type === 'size' ? Number(value) : value;
}

/** Whoever takes it refuses what is so large that it would not be exact. */
function memberNumber({ name, member = name }: CreateOption, value: bigint): number {
  if (value > MOST_SIGNED) throw invalid(`Parameter '${member}' expects integer`);
  return Math.min(Number(value), Number.MAX_SAFE_INTEGER);
}

function version(compat: string): string {
  if (compat === '0.10' || compat === 'v2') return 'v2';
  if (compat === '1.1' || compat === 'v3') return 'v3';
  throw invalid(`Parameter 'version' does not accept value '${compat}'`);
}

function normalize(option: CreateOption, text: string): string {
  switch (option.type) {
    case 'string':
      return text;
    case 'bool':
      if (text !== 'on' && text !== 'off') {
        throw invalid(`Parameter '${option.name}' expects 'on' or 'off'`);
      }
      return text;
    case 'size': {
      const parsed = parseSize(text);
      if (parsed.ok) return String(parsed.bytes);
      if (parsed.reason === 'range') {
        throw invalid(`Value '${text}' is out of range for parameter '${option.name}'`);
      }
      const message = `Parameter '${option.name}' expects a non-negative number below 2^64`;
      throw new OptionMistake(message, SIZE_HINT);
    }
    case 'number':
      return wholeNumber(option, text);
  }
}

const MOST_NUMBER = 2n ** 64n - 1n;
const MOST_SIGNED = 2n ** 63n - 1n;

/** Decimal, hexadecimal (0x1f) or octal (017), as decimal. */
function wholeNumber({ name }: CreateOption, written: string): string {
  const text = written.replace(/^\s*\+?/, '');
  if (/^0[0-7]+$/.test(text)) return String(BigInt(`0o${text.slice(1)}`));
  if (/^(0|[1-9]\d*|0x[\da-f]+)$/i.test(text)) {
    if (BigInt(text) <= MOST_NUMBER) return String(BigInt(text));
    throw invalid(`Value '${text}' is too large for parameter '${name}'`);
  }
  // A huge one to the reference: whoever uses it refuses it.
  if (/^-[1-9]\d{0,18}$/.test(text)) return text;
  throw invalid(`Parameter '${name}' expects a number`);
}

/** A refusal with text printed after it as it is. */
export class OptionMistake extends BlockError {
  readonly lines: string;

  constructor(message: string, lines: string) {
    super('invalid-option', message);
    this.lines = lines;
  }
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}

/** Pieces between single commas; a doubled comma stands for one. */
export function splitCommas(text: string): string[] {
  return text
    .replaceAll(',,', '\0')
    .split(',')
    .map((piece) => piece.replaceAll('\0', ','));
}

export function isHelp(text: string): boolean {
  return splitCommas(text).some((piece) => piece === 'help' || piece === '?');
}

const TYPE_TEXT: Readonly<Record<OptionType, string>> = {
  string: '<str>',
  bool: '<bool (on/off)>',
  size: '<size>',
  number: '<num>',
};

/** What `-o help` prints: the options that are supported, by name. */
export function optionsHelp(format: CreateFormat): string {
  const supported = format.options.filter((each) => each.member !== undefined);
  return `Supported ${format.name} options:\n${helpLines(supported)}`;
}

export function amendHelp({ name, options }: CreateFormat): string {
  return `Amend options for '${name}':\n${helpLines(options)}`;
}

function helpLines(options: readonly CreateOption[]): string {
  return options
    .filter(({ help }) => help !== '')
    .map(({ name, type, help }) => `  ${`${name}=${TYPE_TEXT[type]}`.padEnd(22)} - ${help}\n`)
    .sort()
    .join('');
}
