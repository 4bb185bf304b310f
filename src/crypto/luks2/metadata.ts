// SPDX-License-Identifier: Apache-2.0
// The JSON text of a LUKS version 2 header as checked values.
//
// Source: "LUKS2 On-Disk Format Specification" 1.1.1, section 3. Areas of keyslots lie behind the
// two copies, in the room that `config` gives them, no two of them over another; where the payload
// may be is asked by whoever knows whether it lies in the same file. A keyslot that
// cannot be used here is no reason to refuse the others: it says why when it is asked for. What
// changes the meaning of the data (several segments, integrity, an unknown requirement) is.

import { BlockError, CRYPTO_LIMITS } from '../../base/index.js';
import type { JsonValue } from '../../base/index.js';
import { JsonSyntaxError, parseJson } from '../../wire/index.js';
import type { CipherSpec, HashName } from '../names.js';
import { cipherSpecOf, HASH_BYTES, HASH_NAMES, isOneOf } from '../names.js';
import { DIGEST_BYTES, STRIPES } from '../luks/index.js';
import { corrupt, Fields, quoted, unsupported } from './fields.js';
import { requireReferences } from './references.js';

export type Kdf =
  | {
      readonly type: 'pbkdf2';
      readonly hash: HashName;
      readonly iterations: number;
      readonly salt: Uint8Array;
    }
  | {
      readonly type: 'argon2i' | 'argon2id';
      readonly passes: number;
      readonly memoryKib: number;
      readonly lanes: number;
      readonly salt: Uint8Array;
    };

/** Null where the keyslot cannot be used here. */
export interface KeyslotUse {
  readonly spec: CipherSpec;
  readonly hash: HashName;
  readonly kdf: Kdf;
}

export interface Luks2Keyslot {
  readonly number: number;
  readonly type: string;
  /** Bytes of the key that it keeps. */
  readonly keyBytes: number;
  /** 0 only when asked for, 1 usual, 2 before others. */
  readonly priority: number;
  /** Bytes from the header's start. */
  readonly areaOffset: number;
  readonly areaBytes: number;
  /** As the header writes it. */
  readonly encryption: string;
  readonly use: KeyslotUse | BlockError;
}

export interface Luks2Segment {
  /** Bytes from the start of the file with the payload. */
  readonly offset: number;
  /** Null: up to the end. */
  readonly size: number | null;
  /** Number of the first sector of 512 bytes, for the initial vectors. */
  readonly vectorOffset: number;
  readonly encryption: string;
  readonly sectorBytes: number;
  readonly flags: readonly string[];
}

export interface Luks2Digest {
  readonly number: number;
  readonly hash: HashName;
  readonly iterations: number;
  readonly salt: Uint8Array;
  readonly value: Uint8Array;
  readonly keyslots: readonly number[];
  readonly segments: readonly number[];
}

/** Any of the text's digests, for people. */
export interface Luks2DigestEntry {
  readonly number: number;
  readonly type: string;
  readonly keyslots: readonly number[];
  readonly segments: readonly number[];
  /** Null where it is not known how it is made. */
  readonly digest: Luks2Digest | null;
}

/** What else opens keyslots, for people. */
export interface Luks2Token {
  readonly number: number;
  readonly type: string;
  readonly keyslots: readonly number[];
  /** Of a key in the keyring of a kernel. */
  readonly keyDescription: string | null;
}

export interface Luks2Metadata {
  readonly keyslots: readonly Luks2Keyslot[];
  readonly segment: Luks2Segment;
  /** Of the segment's key. */
  readonly digest: Luks2Digest;
  /** Bytes behind the two copies in which key material lies. */
  readonly keyslotsBytes: number;
  readonly segmentNumber: number;
  readonly digests: readonly Luks2DigestEntry[];
  readonly tokens: readonly Luks2Token[];
  readonly flags: readonly string[];
}

const MEMBERS = 32;
const SECTOR_BYTES = 512;
const AREA_ALIGNMENT = 4096;
/** So that sectors of any file can be counted from it. */
const MOST_VECTOR = 2 ** 52;
const SALT = { min: 8, max: 64 } as const;
const ITERATIONS = { min: 1, max: 2 ** 31 - 1 } as const;
/** Bytes of a key that ciphers here have. */
const MOST_KEY_BYTES = 64;
const KEY = { min: 0, max: 2 ** 32 - 1 } as const;
const OPENING = 0x7b;
/** `,`, `[` and `{`. */
const MEMBER_BYTES: ReadonlySet<number> = new Set([0x2c, 0x5b, OPENING]);

/** `text` ends with NUL. Throws kinds `corrupt-image` and `unsupported`. */
export function parseMetadata(text: Uint8Array, copyBytes: number): Luks2Metadata {
  const root = new Fields('', parsed(text));
  const config = root.object('config');
  requireSizes(config, text.length);
  const flags = requireKnown(config);
  const keyslotsBytes = config.offset('keyslots_size');
  const keyslots = root.numbered('keyslots', MEMBERS).map(keyslotOf);
  const segments = root.numbered('segments', MEMBERS);
  const [first, ...others] = segments;
  if (first === undefined) throw corrupt("'segments' is empty");
  if (others.length > 0) throw unsupported('more than one segment (a reencryption)');
  const [segmentNumber, fields] = first;
  if (segmentNumber !== 0) throw corrupt(`'segments' begins with ${segmentNumber}, not with 0`);
  const segment = segmentOf(fields);
  requireApart(keyslots, { start: copyBytes * 2, bytes: keyslotsBytes });
  const digests = root.numbered('digests', MEMBERS);
  const tokens = root.numbered('tokens', MEMBERS);
  requireReferences({ keyslots: numbersOf(keyslots), segments: [segmentNumber] }, digests, tokens);
  const found = digests.find(([, each]) => each.numbers('segments').includes(segmentNumber));
  if (found === undefined) throw corrupt("no member of 'digests' is that of the segment");
  return {
    keyslots,
    segment,
    segmentNumber,
    digest: digestOf(found),
    digests: digests.map(digestEntryOf),
    keyslotsBytes,
    tokens: tokens.map(tokenOf),
    flags,
  };
}

function numbersOf(keyslots: readonly Luks2Keyslot[]): readonly number[] {
  return keyslots.map(({ number }) => number);
}

/** The text begins with its object, ends with NUL, and nothing lies behind it. */
function parsed(bytes: Uint8Array): JsonValue {
  const end = bytes.indexOf(0);
  if (end < 0) throw corrupt('its JSON text is not terminated');
  if (bytes[0] !== OPENING) throw corrupt("its JSON text does not begin with '{'");
  if (bytes.subarray(end).some((byte) => byte !== 0)) {
    throw corrupt(`something lies behind its JSON text of ${end} bytes`);
  }
  requireFew(bytes.subarray(0, end));
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, end));
  } catch {
    throw corrupt('its JSON text is not UTF-8');
  }
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    throw corrupt(`its JSON text is broken: ${error.message}`);
  }
}

/** So that the parser's memory has a bound far below that of the text. */
function requireFew(text: Uint8Array): void {
  let members = 0;
  for (const byte of text) if (MEMBER_BYTES.has(byte)) members += 1;
  const most = CRYPTO_LIMITS.luks2Members;
  if (members > most) throw corrupt(`its JSON text has ${members} members, more than ${most}`);
}

function requireSizes(config: Fields, textBytes: number): void {
  const size = config.offset('json_size');
  if (size !== textBytes) throw corrupt(`'config.json_size' must be ${textBytes}, not ${size}`);
  const room = config.offset('keyslots_size');
  if (room % AREA_ALIGNMENT === 0) return;
  throw corrupt(`'config.keyslots_size' ${room} is no multiple of ${AREA_ALIGNMENT}`);
}

/** What must be understood to touch the data; the flags are hints. */
function requireKnown(config: Fields): readonly string[] {
  if (config.has('requirements')) {
    const requirements = config.object('requirements');
    const [name] = requirements.has('mandatory') ? requirements.texts('mandatory') : [];
    if (name !== undefined) throw unsupported(`requirement ${quoted(name)}`);
  }
  return config.has('flags') ? config.texts('flags') : [];
}

function keyslotOf([number, fields]: readonly [number, Fields]): Luks2Keyslot {
  const area = fields.object('area');
  const type = fields.text('type');
  const encryption = area.has('encryption') || isOwn(fields) ? area.text('encryption') : 'none';
  if (encryption === '') throw corrupt(`'${area.path}.encryption' is empty`);
  return {
    number,
    type,
    keyBytes: fields.number('key_size', KEY),
    priority: fields.has('priority') ? fields.number('priority', { min: 0, max: 2 }) : 1,
    areaOffset: area.offset('offset'),
    areaBytes: area.offset('size'),
    encryption,
    use: useOf(fields, area, encryption),
  };
}

/** Of the kind that has a key material of its own. */
function isOwn(fields: Fields): boolean {
  return fields.text('type') === 'luks2';
}

/** How a key is taken out of it, or why it cannot be. */
function useOf(fields: Fields, area: Fields, encryption: string): KeyslotUse | BlockError {
  try {
    if (!isOwn(fields)) throw unsupported(`type ${quoted(fields.text('type'))} of ${fields.path}`);
    const areaType = area.text('type');
    if (areaType !== 'raw') throw corrupt(`${area.path} has the type ${quoted(areaType)}`);
    const af = fields.object('af');
    const afType = af.text('type');
    if (afType !== 'luks1') throw corrupt(`${af.path} has the type ${quoted(afType)}`);
    af.number('stripes', { min: STRIPES, max: STRIPES });
    const keyBytes = fields.number('key_size', KEY);
    if (keyBytes < 1 || keyBytes > MOST_KEY_BYTES) {
      throw unsupported(`${fields.path}.key_size ${keyBytes}`);
    }
    const wish = { encryption, keyBytes: area.number('key_size', KEY), field: area.path };
    return { spec: specOf(wish), hash: hashOf(af, 'hash'), kdf: kdfOf(fields.object('kdf')) };
  } catch (error) {
    if (error instanceof BlockError && error.kind === 'unsupported') return error;
    throw error;
  }
}

function kdfOf(kdf: Fields): Kdf {
  const type = kdf.text('type');
  const salt = kdf.base64('salt', SALT);
  if (type === 'pbkdf2') {
    const iterations = kdf.number('iterations', ITERATIONS);
    return { type, hash: hashOf(kdf, 'hash'), iterations, salt };
  }
  if (type !== 'argon2i' && type !== 'argon2id') throw unsupported(`${kdf.path} ${quoted(type)}`);
  const lanes = kdf.number('cpus', { min: 1, max: CRYPTO_LIMITS.argonLanes });
  const memory = { min: 8 * lanes, max: 2 ** 32 - 1 };
  const memoryKib = kdf.number('memory', memory);
  if (memoryKib * 1024 > CRYPTO_LIMITS.argonBytes) {
    const most = CRYPTO_LIMITS.argonBytes / 1024;
    throw unsupported(`${kdf.path}.memory ${memoryKib} (KiB, more than ${most})`);
  }
  return { type, passes: kdf.number('time', ITERATIONS), memoryKib, lanes, salt };
}

function hashOf(fields: Fields, name: string): HashName {
  const hash = fields.text(name);
  if (isOneOf(HASH_NAMES, hash)) return hash;
  throw unsupported(`${fields.path}.${name} ${quoted(hash)}`);
}

/** Of `aes-xts-plain64` and the like, in `field`. Throws kind `unsupported`. */
export function specOf({ encryption, keyBytes, field }: Encryption): CipherSpec {
  const [, cipherName = '', cipherMode = ''] = /^([^-]{1,32})-(.{1,64})$/.exec(encryption) ?? [];
  try {
    return cipherSpecOf({ cipherName, cipherMode, keyBytes });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const what = `${field}.encryption ${quoted(encryption)} with a key of ${keyBytes} bytes`;
    throw unsupported(what);
  }
}

export interface Encryption {
  readonly encryption: string;
  readonly keyBytes: number;
  /** Path of what has it as a member. */
  readonly field: string;
}

function segmentOf(fields: Fields): Luks2Segment {
  const type = fields.text('type');
  if (type !== 'crypt') throw unsupported(`type ${quoted(type)} of ${fields.path}`);
  if (fields.has('integrity')) throw unsupported(`${fields.path}.integrity`);
  const sectorBytes = fields.number('sector_size', { min: 512, max: 4096 });
  if ((sectorBytes & (sectorBytes - 1)) !== 0) {
    throw corrupt(`'${fields.path}.sector_size' is no power of two: ${sectorBytes}`);
  }
  const isDynamic = fields.text('size') === 'dynamic';
  if (fields.text('size') === '0') throw corrupt(`'${fields.path}.size' is 0`);
  if (fields.text('encryption') === '') throw corrupt(`'${fields.path}.encryption' is empty`);
  if (fields.has('flags')) fields.texts('flags');
  const segment = {
    offset: fields.offset('offset'),
    size: isDynamic ? null : fields.offset('size'),
    vectorOffset: fields.offset('iv_tweak'),
    encryption: fields.text('encryption'),
    sectorBytes,
    flags: fields.has('flags') ? fields.texts('flags') : [],
  };
  if (segment.vectorOffset > MOST_VECTOR) {
    throw unsupported(`${fields.path}.iv_tweak ${segment.vectorOffset}`);
  }
  for (const [name, value] of [['offset', segment.offset], ['size', segment.size ?? 0]] as const) {
    if (value % SECTOR_BYTES === 0 && (name === 'offset' || value % sectorBytes === 0)) continue;
    throw corrupt(`'${fields.path}.${name}' ${value} is not in whole sectors`);
  }
  return segment;
}

function digestOf([number, fields]: readonly [number, Fields]): Luks2Digest {
  const type = fields.text('type');
  if (type !== 'pbkdf2') throw unsupported(`type ${quoted(type)} of ${fields.path}`);
  const hash = hashOf(fields, 'hash');
  return {
    number,
    hash,
    iterations: fields.number('iterations', ITERATIONS),
    salt: fields.base64('salt', SALT),
    value: fields.base64('digest', digestBytesOf(hash)),
    keyslots: fields.numbers('keyslots'),
    segments: fields.numbers('segments'),
  };
}

/** As long as its hash, or as version 1 had it: volumes made of those keep that digest. */
function digestBytesOf(hash: HashName): { readonly min: number; readonly max: number } {
  const lengths = [DIGEST_BYTES, HASH_BYTES[hash]];
  return { min: Math.min(...lengths), max: Math.max(...lengths) };
}

function digestEntryOf(entry: readonly [number, Fields]): Luks2DigestEntry {
  const [number, fields] = entry;
  let digest: Luks2Digest | null = null;
  try {
    digest = digestOf(entry);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
  return {
    number,
    type: fields.text('type'),
    keyslots: fields.numbers('keyslots'),
    segments: fields.numbers('segments'),
    digest,
  };
}

function tokenOf([number, fields]: readonly [number, Fields]): Luks2Token {
  const type = fields.text('type');
  const isDescribed = type === 'luks2-keyring' && fields.isText('key_description');
  return {
    number,
    type,
    keyslots: fields.numbers('keyslots'),
    keyDescription: isDescribed ? fields.text('key_description') : null,
  };
}

/** Bytes of a key that is split, in whole sectors. */
export function keyMaterialBytes(keyBytes: number): number {
  return Math.ceil((keyBytes * STRIPES) / SECTOR_BYTES) * SECTOR_BYTES;
}

interface Room {
  /** Where key material may begin. */
  readonly start: number;
  readonly bytes: number;
}

/** Each area in its room and holding its key, no two over another. */
function requireApart(keyslots: readonly Luks2Keyslot[], { start, bytes }: Room): void {
  const end = start + bytes;
  for (const [index, { number, areaOffset, areaBytes, keyBytes, use }] of keyslots.entries()) {
    const areaEnd = areaOffset + areaBytes;
    const name = `the area of keyslot ${number} at ${areaOffset}`;
    if (areaOffset % AREA_ALIGNMENT !== 0) throw corrupt(`${name} is not aligned`);
    if (areaBytes === 0) throw corrupt(`${name} is empty`);
    if (areaOffset < start || areaEnd > end) {
      throw corrupt(`${name} of ${areaBytes} bytes lies outside of ${start} to ${end}`);
    }
    if (!(use instanceof BlockError) && keyMaterialBytes(keyBytes) > areaBytes) {
      throw corrupt(`${name} of ${areaBytes} bytes is too small`);
    }
    const other = keyslots
      .slice(index + 1)
      .find((each) => areaOffset < each.areaOffset + each.areaBytes && each.areaOffset < areaEnd);
    if (other !== undefined) throw corrupt(`${name} overlaps that of keyslot ${other.number}`);
  }
}
