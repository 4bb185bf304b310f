// SPDX-License-Identifier: Apache-2.0
// Hostile encryption headers: a seed changes one or two things of a sound header, mostly to values
// that stand at the edges of what is allowed, and names what it changed. Numbers of iterations are
// either harmless or so many that nobody derives a key.
import { createHash } from 'node:crypto';

import { SeededRandom } from '../../src/base/index.js';
import type { Random } from '../../src/base/index.js';

export interface Mutant {
  /** What was changed, to what. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

interface NumberField {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 2 | 4 | 8;
}

const EDGES = [
  0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 32, 48, 64, 65, 125, 128, 129, 255, 256, 3999, 4000, 4001,
  0xffff, 0x10000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff,
];
const BOMBS = [0, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
const LAST = (1n << 64n) - 1n;
const HUGE = [1n << 40n, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, LAST - 4095n, LAST];

const SLOT_FIELDS = ['active', 'iterations', null, 'key_material_offset', 'stripes'];
const slotNumber = (slot: number, field: string): NumberField => {
  const at = { active: 0, iterations: 4, key_material_offset: 40, stripes: 44 }[field] ?? 0;
  return { name: `keyslot ${slot} ${field}`, offset: 208 + 48 * slot + at, bytes: 4 };
};
const LUKS1_NUMBERS: readonly NumberField[] = [
  { name: 'version', offset: 6, bytes: 2 },
  { name: 'payload_offset', offset: 104, bytes: 4 },
  { name: 'key_bytes', offset: 108, bytes: 4 },
  { name: 'mk_digest_iterations', offset: 164, bytes: 4 },
  ...Array.from({ length: 8 }, (_, slot) => slot).flatMap((slot) =>
    SLOT_FIELDS.flatMap((field) => (field === null ? [] : [slotNumber(slot, field)])),
  ),
];
const LUKS1_TEXTS = [
  { name: 'cipher_name', offset: 8, bytes: 32 },
  { name: 'cipher_mode', offset: 40, bytes: 32 },
  { name: 'hash_spec', offset: 72, bytes: 32 },
  { name: 'uuid', offset: 168, bytes: 40 },
] as const;
const TEXTS = [
  '', 'aes', 'AES', 'serpent', 'twofish', 'cast5', 'cbc', 'ecb', 'ecb-plain64', 'cbc-', 'cbc-plain',
  'cbc-plain64', 'cbc-plain64:sha256', 'cbc-essiv', 'cbc-essiv:', 'cbc-essiv:sha256',
  'cbc-essiv:sha1', 'cbc-essiv:foo', 'cbc-foo', 'xts-plain64', 'ctr-plain64', 'foo-plain64', '-',
  ':', 'sha1', 'sha256', 'SHA256', 'sha512', 'md5', 'whirlpool', 'sha3-256', 'foo', 'a\nb',
  '\x1b[31m', '\xff\xfe', '%s%n', 'x'.repeat(31), 'x'.repeat(40),
];

function pick<T>(random: Random, from: readonly T[]): T {
  return from[random.below(from.length)] as T;
}

function putNumber(view: DataView, { offset, bytes }: NumberField, value: bigint): void {
  if (bytes === 8) view.setBigUint64(offset, BigInt.asUintN(64, value));
  else if (bytes === 4) view.setUint32(offset, Number(BigInt.asUintN(32, value)));
  else view.setUint16(offset, Number(BigInt.asUintN(16, value)));
}

/** Changes a field of a header of version 1 at the start of `bytes`, and says which. */
function changeLuks1(bytes: Uint8Array, random: Random): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = random.below(10);
  if (kind < 5) {
    const field = pick(random, LUKS1_NUMBERS);
    const isCount = field.name.endsWith('iterations');
    const other = pick(random, LUKS1_NUMBERS.filter(({ name }) => name.endsWith('offset')));
    const near = view.getUint32(other.offset) + random.below(3) - 1;
    const state = pick(random, [0x00ac71f3, 0xdead, 0, 1]);
    const places = field.name.endsWith('offset') ? [...EDGES, near, near, near] : EDGES;
    const choices = isCount ? BOMBS : field.name.endsWith('active') ? [state] : places;
    const value = pick(random, choices) >>> 0;
    putNumber(view, field, BigInt(value));
    return `${field.name} = ${value}`;
  }
  if (kind < 8) {
    const { name, offset, bytes: length } = pick(random, LUKS1_TEXTS);
    const text = pick(random, TEXTS);
    const isWhole = random.chance(0.1);
    bytes.fill(isWhole ? 0x78 : 0, offset, offset + length);
    bytes.set(Buffer.from(text, 'latin1').subarray(0, length), offset);
    return `${name} = ${JSON.stringify(text)}${isWhole ? ' without an end' : ''}`;
  }
  const isSalt = kind === 8;
  // A flip in the names or in magic and version; or in digest and salts, where no password opens.
  const at = isSalt ? 112 + random.below(52) : random.below(104);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
  return `byte ${at} ^`;
}

export function luks1Mutant(base: Uint8Array, seed: number): Mutant {
  const random = new SeededRandom(seed);
  const bytes = base.slice();
  const names = [changeLuks1(bytes, random)];
  if (random.chance(0.25)) names.push(changeLuks1(bytes, random));
  if (!random.chance(0.05)) return { name: names.join(', '), bytes };
  const length = pick(random, [0, 5, 7, 591, 592, 4096, 5000, random.below(bytes.length)]);
  return { name: `${names.join(', ')}, length ${length}`, bytes: bytes.slice(0, length) };
}

const CLUSTER = 65_536;
const QCOW2_NUMBERS: readonly NumberField[] = [
  { name: 'crypt_method', offset: 32, bytes: 4 },
  { name: 'extension type', offset: 104, bytes: 4 },
  { name: 'extension length', offset: 108, bytes: 4 },
  { name: 'area offset', offset: 112, bytes: 8 },
  { name: 'area length', offset: 120, bytes: 8 },
  { name: 'l1_table_offset', offset: 40, bytes: 8 },
  { name: 'refcount_table_offset', offset: 48, bytes: 8 },
];
const CRYPT_EXTENSION = 0x0537_be77;

/** `base` as inQcow2() makes it: the header area lies from cluster 4 on. */
export function qcow2LuksMutant(base: Uint8Array, seed: number): Mutant {
  const random = new SeededRandom(seed);
  const bytes = base.slice();
  const view = new DataView(bytes.buffer);
  if (random.chance(0.4)) {
    const name = changeLuks1(bytes.subarray(4 * CLUSTER), random);
    return { name: `LUKS ${name}`, bytes };
  }
  if (random.chance(0.1)) {
    bytes.copyWithin(128, 104, 128);
    view.setBigUint64(128 + 8, BigInt(pick(random, [0, 1, 4, 5, 6]) * CLUSTER));
    return { name: 'a second extension', bytes };
  }
  const field = pick(random, QCOW2_NUMBERS);
  const clusters = Array.from({ length: 8 }, (_, each) => BigInt(each * CLUSTER));
  const own = BigInt(view.getUint32(field.offset + 4));
  const near = [own - 1n, own + 1n, own + 512n, own + BigInt(CLUSTER), BigInt(base.length)];
  const edges = EDGES.map(BigInt);
  const value = pick(random, [
    ...(field.bytes === 8 ? [...clusters, ...near, ...HUGE] : [...edges, 15n, 16n, 17n, 24n]),
    ...(field.name.endsWith('type') ? [BigInt(CRYPT_EXTENSION), 0n, 0x6803_f857n] : [0n, 1n, 2n]),
  ]);
  putNumber(view, field, value);
  return { name: `${field.name} = ${BigInt.asUintN(64, value)}`, bytes };
}

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
type Path = readonly (string | number)[];

const LEAVES: readonly Json[] = [
  null, true, 0, 1, -1, 2, 1.5, 512, 513, 4096, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32,
  2 ** 53, '', '0', '1', '-1', '00', '0x10', '1e3', '512', '513', '4096', '32768', '33280',
  '163840', '294912', '9007199254740991', '9007199254740992', '18446744073709551615',
  '18446744073709551616', '99999999999999999999999999', 'dynamic', 'crypt', 'linear', 'luks1',
  'luks2', 'reencrypt', 'raw', 'none', 'pbkdf2', 'argon2id', 'sha256', 'sha1', 'foo',
  'aes-xts-plain64', 'aes-cbc-essiv:sha256', 'serpent-xts-plain64', 'cipher_null-ecb', 'aes',
  'a\nb\u001b[31m', 'x'.repeat(3000), [], ['0'],
  ['0', '0'], ['0', '1'], ['7'], [0], ['x'], {}, { '0': {} }, { x: 1 }, { mandatory: ['foo'] },
];
const COUNTS: readonly Json[] = [
  0, -1, 2, 1.5, '1000', null, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 40,
];
const SALT = 'AAAAAAAAAAAAAAAAAAAAAA==';
const KDFS: readonly Json[] = [
  { type: 'argon2id', time: 4, memory: 2 ** 22, cpus: 4, salt: SALT },
  { type: 'argon2id', time: 2 ** 31 - 1, memory: 2 ** 20, cpus: 4, salt: SALT },
  { type: 'argon2i', time: 2 ** 31, memory: 32, cpus: 1, salt: SALT },
  { type: 'argon2id', time: 1, memory: 2 ** 31, cpus: 2 ** 24, salt: SALT },
  { type: 'argon2id', time: 1, memory: 32, cpus: 0, salt: '' },
];

function paths(value: Json, prefix: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [prefix];
  const below = Object.entries(value).flatMap(([name, each]) => paths(each, [...prefix, name]));
  return prefix.length === 0 ? below : [prefix, ...below];
}

/** Changes a member of the JSON text, and says which. */
function changeText(root: Json, random: Random): string {
  const path = pick(random, paths(root));
  let holder = root as { [name: string]: Json };
  for (const name of path.slice(0, -1)) holder = holder[name] as { [name: string]: Json };
  const last = String(path.at(-1));
  const isCount = ['iterations', 'time', 'memory', 'cpus'].includes(last);
  const kind = random.below(8);
  if (kind === 0) {
    delete holder[last];
    return `no ${path.join('.')}`;
  }
  if (kind === 1 && !Array.isArray(holder)) {
    const twin = pick(random, ['1', '2', '31', '32', '01', 'x']);
    holder[twin] = structuredClone(holder[last] as Json);
    return `${[...path.slice(0, -1), twin].join('.')} as ${last}`;
  }
  const value = pick(random, isCount ? COUNTS : last === 'kdf' ? KDFS : LEAVES);
  holder[last] = structuredClone(value);
  return `${path.join('.')} = ${JSON.stringify(value).slice(0, 60)}`;
}

/** What no value of JSON can say. */
const SPELLINGS: readonly (readonly [name: string, change: (text: string) => string])[] = [
  ['a member twice', (text) => text.replace('"tokens":', '"tokens":{},"tokens":')],
  ['config twice', (text) => text.replace('"config":{', '"config":{"json_size":"5",')],
  ['deep nesting', (text) => text.replace('{', `{"x":${'['.repeat(5000)}${']'.repeat(5000)},`)],
  ['unclosed nesting', (text) => text.replace('{', `{"x":${'[{"a":'.repeat(1500)}`)],
  ['space before', (text) => ` ${text}`],
  ['something behind', (text) => `${text}x`],
  ['something behind NUL', (text) => `${text}\0\0x`],
  ['cut short', (text) => text.slice(0, text.length - 2)],
  ['no text', () => ''],
  ['a list', (text) => `[${text}]`],
  ['a number of many digits', (text) => text.replace(':512', `:${'9'.repeat(4000)}`)],
  ['bad UTF-8', (text) => text.replace('"tokens":', '"x":"\xff\xfe","tokens":')],
  ['a comment', (text) => text.replace('"tokens":', '/* x */"tokens":')],
  ['NaN', (text) => text.replace(':512', ':NaN')],
];

const BINARY_NUMBERS: readonly NumberField[] = [
  { name: 'version', offset: 6, bytes: 2 },
  { name: 'hdr_size', offset: 8, bytes: 8 },
  { name: 'seqid', offset: 16, bytes: 8 },
  { name: 'hdr_offset', offset: 256, bytes: 8 },
];
const BINARY_TEXTS = [
  { name: 'label', offset: 24, bytes: 48 },
  { name: 'csum_alg', offset: 72, bytes: 32 },
  { name: 'uuid', offset: 168, bytes: 40 },
  { name: 'subsystem', offset: 208, bytes: 48 },
] as const;

function changeBinary(copy: Uint8Array, random: Random): string {
  const view = new DataView(copy.buffer, copy.byteOffset, copy.byteLength);
  if (random.chance(0.5)) {
    const { name, offset, bytes } = pick(random, BINARY_TEXTS);
    const text = pick(random, TEXTS);
    copy.fill(random.chance(0.1) ? 0x78 : 0, offset, offset + bytes);
    copy.set(Buffer.from(text, 'latin1').subarray(0, bytes), offset);
    return `${name} = ${JSON.stringify(text)}`;
  }
  const field = pick(random, BINARY_NUMBERS);
  const sizes = [4096n, 16_384n, 32_768n, 20_480n, 4_194_304n, 8_388_608n];
  const value = pick(random, [...EDGES.map(BigInt), ...sizes, ...sizes, ...HUGE]);
  putNumber(view, field, value);
  return `${field.name} = ${value}`;
}

/** What makeLuks2() made. */
export interface Luks2Base {
  readonly bytes: Uint8Array;
  readonly text: Readonly<Record<string, unknown>>;
}

const COPY = 16_384;
const TEXT_AT = 4096;

export function luks2Mutant({ bytes: base, text }: Luks2Base, seed: number): Mutant {
  const random = new SeededRandom(seed);
  const bytes = base.slice();
  const root = structuredClone(text) as Json;
  const names: string[] = [];
  let spelling = (plain: string): string => plain;
  const kind = random.below(10);
  if (kind < 7) {
    names.push(changeText(root, random));
    if (random.chance(0.2)) names.push(changeText(root, random));
  } else if (kind === 7) {
    const [name, change] = pick(random, SPELLINGS);
    names.push(name);
    spelling = change;
  }
  const copies = pick(random, ['both', 'both', 'primary', 'secondary'] as const);
  const sum = random.chance(0.9) ? 'right' : 'wrong';
  const isNewer = random.chance(0.5);
  for (const [index, place] of (['primary', 'secondary'] as const).entries()) {
    if (copies !== 'both' && copies !== place) continue;
    const copy = bytes.subarray(index * COPY, (index + 1) * COPY);
    const spelt = Buffer.from(spelling(JSON.stringify(root)), 'latin1').subarray(0, COPY - TEXT_AT);
    copy.fill(0, TEXT_AT);
    copy.set(spelt, TEXT_AT);
    if (isNewer) copy[23] = 9;
    if (kind > 7) names.push(`${place} ${changeBinary(copy, random)}`);
    copy.fill(0, 448, 512);
    copy.set(createHash('sha256').update(copy).digest(), 448);
    if (sum === 'wrong') copy[448] = (copy[448] ?? 0) ^ 1;
  }
  return { name: `${names.join(', ')} (${copies}, ${sum} sum)`, bytes };
}
