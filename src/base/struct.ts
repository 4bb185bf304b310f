// SPDX-License-Identifier: Apache-2.0
// On-disk structures as tables: one row per field, big endian, versions are a column.
//
// The table drives decoding, encoding, validation with one clear message, JSON names, and the
// malformed-image tests, which break each rule once (`rulesOf`). A field that the version or the
// structure's own length does not cover takes `otherwise`; it is never read from bytes that
// belong to something else. Offsets and sizes are numbers, refused above 2^53 − 1 when decoded;
// words of flag bits are Bits64.

import { assert } from './assert.js';
import type { Bits64 } from './bitfield.js';
import { hexBits, NO_BITS } from './bitfield.js';
import { BlockError } from './errors.js';
import { MAX_OFFSET } from './limits.js';

export interface FieldRules {
  readonly equals?: number;
  readonly oneOf?: readonly number[];
  readonly min?: number;
  readonly max?: number;
  readonly multipleOf?: number;
  /** First version that has the field; earlier ones read as `otherwise`. */
  readonly since?: number;
  readonly otherwise?: number;
  /** Name in messages and JSON; the field's name in snake_case by default. */
  readonly json?: string;
  /** Message for a broken rule; field and value are appended to it, but not for `equals`. */
  readonly says?: (value: number) => string;
  /** Message for a number above 2^53 − 1; field and value are appended to it. */
  readonly tooLarge?: string;
}

type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | 'bits64' | 'bytes';

export interface Field<Name extends string = string, Value = unknown> {
  readonly name: Name;
  readonly type: FieldType;
  readonly rules: FieldRules;
  /** Of a string of bytes. */
  readonly length?: number;
  /** Never set; carries the decoded type. */
  readonly value?: Value;
}

interface PlacedField extends Field {
  readonly offset: number;
  readonly size: number;
  readonly json: string;
}

type Decoded<F extends readonly Field[]> = {
  readonly [E in F[number] as E['name']]: E extends Field<string, infer V> ? V : never;
};

export interface Struct<Value> {
  readonly name: string;
  readonly fields: readonly PlacedField[];
  /** Bytes of all fields together. */
  readonly size: number;
  readonly sample?: Value;
}

export type StructValue<S> = S extends Struct<infer V> ? V : never;

/** Which version it is and how many bytes of the structure are there. */
export interface StructExtent {
  readonly version: number;
  readonly length: number;
}

const SIZES: Readonly<Record<Exclude<FieldType, 'bytes'>, number>> = {
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  bits64: 8,
};

function numberField(type: FieldType) {
  return <const N extends string>(name: N, rules: FieldRules = {}): Field<N, number> => ({
    name,
    type,
    rules,
  });
}

export const u8 = numberField('u8');
export const u16 = numberField('u16');
export const u32 = numberField('u32');
export const u64 = numberField('u64');

/** A word of flag bits. */
export function bits64<const N extends string>(
  name: N,
  rules: Pick<FieldRules, 'since' | 'json'> = {},
): Field<N, Bits64> {
  return { name, type: 'bits64', rules };
}

/** So many bytes as they are: a name, a digest, a salt. */
export function bytes<const N extends string>(name: N, length: number): Field<N, Uint8Array> {
  return { name, type: 'bytes', rules: {}, length };
}

/** Places the fields one after another without gaps. */
export function struct<const F extends readonly Field[]>(
  name: string,
  fields: F,
): Struct<Decoded<F>> {
  let offset = 0;
  const placed = fields.map((field): PlacedField => {
    const size = field.type === 'bytes' ? (field.length ?? 0) : SIZES[field.type];
    const json = field.rules.json ?? snakeCase(field.name);
    const result = { ...field, offset, size, json };
    offset += size;
    return result;
  });
  return { name, fields: placed, size: offset };
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Fails at import time when the fields of a version do not end where the format says. */
export function assertLayout(
  table: Struct<unknown>,
  ends: Readonly<Record<number, number>>,
): void {
  for (const [version, end] of Object.entries(ends)) {
    let last = 0;
    for (const field of table.fields) {
      if ((field.rules.since ?? 0) <= Number(version)) last = field.offset + field.size;
    }
    assert(last === end, `${table.name} version ${version} ends at ${last}, expected ${end}`);
  }
}

function isPresent(field: PlacedField, extent: StructExtent): boolean {
  return (field.rules.since ?? 0) <= extent.version && field.offset + field.size <= extent.length;
}

/** Reads the fields at the start of `bytes`, unchecked but for numbers above 2^53 − 1. */
export function decodeStruct<V>(table: Struct<V>, bytes: Uint8Array, extent: StructExtent): V {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const value: Record<string, number | Bits64 | Uint8Array> = {};
  for (const field of table.fields) {
    if (field.type === 'bytes') {
      value[field.name] = bytes.slice(field.offset, field.offset + field.size);
      continue;
    }
    if (!isPresent(field, extent)) {
      value[field.name] = field.type === 'bits64' ? NO_BITS : (field.rules.otherwise ?? 0);
      continue;
    }
    assert(field.offset + field.size <= bytes.length, `${table.name}: too few bytes to decode`);
    value[field.name] = decodeField(table.name, field, view);
  }
  return value as V;
}

function decodeField(structName: string, field: PlacedField, view: DataView): number | Bits64 {
  switch (field.type) {
    case 'bytes':
      assert(false, `${structName}: ${field.name} is no number`);
    case 'u8':
      return view.getUint8(field.offset);
    case 'u16':
      return view.getUint16(field.offset);
    case 'u32':
      return view.getUint32(field.offset);
    case 'bits64':
      return { hi: view.getUint32(field.offset), lo: view.getUint32(field.offset + 4) };
    case 'u64': {
      const hi = view.getUint32(field.offset);
      const lo = view.getUint32(field.offset + 4);
      if (hi > 0x1f_ffff) {
        const text = field.rules.tooLarge ?? `${structName}: must be at most 2^53 - 1`;
        throw detailed(text, `${field.json} 0x${hexBits({ hi, lo })}`);
      }
      return hi * 0x1_0000_0000 + lo;
    }
  }
}

/** Writes the fields of this version into the start of `bytes`; nothing else is touched. */
export function encodeStruct<V>(
  table: Struct<V>,
  value: V,
  target: { readonly bytes: Uint8Array } & StructExtent,
): void {
  const { bytes } = target;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const field of table.fields) {
    if (!isPresent(field, target)) continue;
    const member = (value as Record<string, number | Bits64 | Uint8Array>)[field.name] ?? 0;
    if (member instanceof Uint8Array) {
      assert(member.length === field.size, `${field.name} is not ${field.size} bytes long`);
      bytes.set(member, field.offset);
    } else encodeField(field, view, member);
  }
}

function encodeField(field: PlacedField, view: DataView, value: number | Bits64): void {
  if (typeof value !== 'number') {
    view.setUint32(field.offset, value.hi);
    view.setUint32(field.offset + 4, value.lo);
    return;
  }
  assert(value >= 0 && value <= MAX_OFFSET, `field ${field.name} cannot hold ${value}`);
  if (field.type === 'u8') view.setUint8(field.offset, value);
  else if (field.type === 'u16') view.setUint16(field.offset, value);
  else if (field.type === 'u32') view.setUint32(field.offset, value);
  else {
    view.setUint32(field.offset, Math.floor(value / 0x1_0000_0000));
    view.setUint32(field.offset + 4, value % 0x1_0000_0000);
  }
}

/**
 * Throws kind `corrupt-image` for the first broken rule, naming field and value; members that are
 * not there are not checked.
 */
export function validateStruct<V>(
  table: Struct<V>,
  value: Partial<V>,
  extent: StructExtent,
): void {
  for (const field of table.fields) {
    if (!isPresent(field, extent)) continue;
    const number = (value as Record<string, number | Bits64>)[field.name];
    if (typeof number !== 'number') continue;
    const broken = brokenRule(field.rules, number);
    if (broken === null) continue;
    throw brokenField(table, field, { number, broken });
  }
}

/** A field of one possible value needs no telling what else it holds. */
function brokenField(
  table: Struct<unknown>,
  { rules, json }: PlacedField,
  found: { readonly number: number; readonly broken: string },
): BlockError {
  const text = rules.says?.(found.number);
  if (text !== undefined && rules.equals !== undefined) {
    return new BlockError('corrupt-image', text);
  }
  return detailed(text ?? `${table.name}: ${found.broken}`, `${json} ${found.number}`);
}

function detailed(text: string, detail: string): BlockError {
  return new BlockError('corrupt-image', `${text} (${detail})`, { detail });
}

function brokenRule(rules: FieldRules, value: number): string | null {
  if (rules.equals !== undefined && value !== rules.equals) return `must be ${rules.equals}`;
  if (rules.oneOf !== undefined && !rules.oneOf.includes(value)) {
    return `must be one of ${rules.oneOf.join(', ')}`;
  }
  if (rules.min !== undefined && value < rules.min) return `must be at least ${rules.min}`;
  if (rules.max !== undefined && value > rules.max) return `must be at most ${rules.max}`;
  if (rules.multipleOf !== undefined && value % rules.multipleOf !== 0) {
    return `must be a multiple of ${rules.multipleOf}`;
  }
  return null;
}

/** One rule of a table with a value that breaks it and no other rule's range check. */
export interface BreakableRule {
  readonly field: string;
  readonly json: string;
  readonly rule: keyof FieldRules;
  readonly offset: number;
  readonly size: number;
  readonly badValue: number;
}

/** Every rule that applies to the extent, for tests that break each one once. */
export function rulesOf(table: Struct<unknown>, extent: StructExtent): BreakableRule[] {
  const found: BreakableRule[] = [];
  for (const field of table.fields) {
    if (!isPresent(field, extent)) continue;
    const { rules, name, json, offset, size } = field;
    const add = (rule: keyof FieldRules, badValue: number): void => {
      found.push({ field: name, json, rule, offset, size, badValue });
    };
    if (rules.equals !== undefined) add('equals', rules.equals + 1);
    if (rules.oneOf !== undefined) add('oneOf', Math.max(...rules.oneOf) + 1);
    if (rules.min !== undefined) add('min', rules.min - 1);
    if (rules.max !== undefined) add('max', nextBad(rules.max, rules.multipleOf ?? 1));
    if (rules.multipleOf !== undefined) {
      add('multipleOf', Math.max(rules.min ?? 0, rules.multipleOf) + 1);
    }
  }
  return found;
}

function nextBad(max: number, multiple: number): number {
  return (Math.floor(max / multiple) + 1) * multiple;
}
