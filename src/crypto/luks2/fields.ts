// SPDX-License-Identifier: Apache-2.0
// Members of the JSON text of a LUKS version 2 header, each looked at before it is believed; what
// is wrong is named by its path. Numbers beyond 32 bits are decimal texts there.

import { BlockError, escapeControls, JsonDouble, MAX_OFFSET } from '../../base/index.js';
import type { JsonValue } from '../../base/index.js';

/** An object of the text and where it is: `keyslots.0.kdf`. */
export class Fields {
  readonly path: string;
  readonly #members: Readonly<Record<string, JsonValue>>;

  constructor(path: string, value: JsonValue | undefined) {
    this.path = path;
    const isStructure = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!isStructure || value instanceof JsonDouble) throw corrupt(`'${path}' is not an object`);
    this.#members = value as Readonly<Record<string, JsonValue>>;
  }

  get names(): string[] {
    return Object.keys(this.#members);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#members, name);
  }

  object(name: string): Fields {
    return new Fields(this.#pathOf(name), this.#member(name));
  }

  /** Objects by the numbers that are their names, at most `most`. */
  numbered(name: string, most: number): (readonly [number, Fields])[] {
    const list = this.object(name);
    if (list.names.length > most) throw corrupt(`'${list.path}' has more than ${most} members`);
    return list.names
      .map((key) => [list.#numberOf(key), list.object(key)] as const)
      .toSorted(([left], [right]) => left - right);
  }

  isText(name: string): boolean {
    return typeof this.#member(name) === 'string';
  }

  text(name: string): string {
    const value = this.#member(name);
    if (typeof value !== 'string') throw corrupt(`'${this.#pathOf(name)}' is not a text`);
    return value;
  }

  /** A whole number between the two. */
  number(name: string, { min, max }: { readonly min: number; readonly max: number }): number {
    const value = this.#member(name);
    if (typeof value === 'number' && value >= min && value <= max) return value;
    const shown = typeof value === 'number' || typeof value === 'bigint' ? `, not ${value}` : '';
    const wish = min === max ? `must be ${min}` : `must be from ${min} to ${max}`;
    throw corrupt(`'${this.#pathOf(name)}' ${wish}${shown}`);
  }

  /** A number of 64 bits, written as a text; only what can be an offset is accepted. */
  offset(name: string): number {
    const text = this.text(name);
    const value = /^\d{1,20}$/.test(text) ? Number(text) : Infinity;
    if (value <= MAX_OFFSET) return value;
    throw corrupt(`'${this.#pathOf(name)}' is no offset or size: ${quoted(text)}`);
  }

  base64(name: string, { min, max }: { readonly min: number; readonly max: number }): Uint8Array {
    const text = this.text(name);
    if (text.length <= max * 2 + 4) {
      const bytes = Buffer.from(text, 'base64');
      const isCanonical = bytes.toString('base64') === text;
      if (isCanonical && bytes.length >= min && bytes.length <= max) return Uint8Array.from(bytes);
    }
    throw corrupt(`'${this.#pathOf(name)}' is not base64 of ${min} to ${max} bytes`);
  }

  /** Numbers that are written as texts. */
  numbers(name: string): number[] {
    const value = this.#member(name);
    if (!Array.isArray(value)) throw corrupt(`'${this.#pathOf(name)}' is not a list`);
    return value.map((each: JsonValue) => this.#numberOf(typeof each === 'string' ? each : ''));
  }

  texts(name: string): string[] {
    const value = this.#member(name);
    const isList = Array.isArray(value) && value.every((each) => typeof each === 'string');
    if (!isList) throw corrupt(`'${this.#pathOf(name)}' is not a list of texts`);
    return value as string[];
  }

  #numberOf(text: string): number {
    if (/^(0|[1-9]\d{0,8})$/.test(text)) return Number(text);
    throw corrupt(`'${this.path}' has a name or reference that is no number: ${quoted(text)}`);
  }

  #member(name: string): JsonValue | undefined {
    return this.has(name) ? this.#members[name] : undefined;
  }

  #pathOf(name: string): string {
    const path = this.path === '' ? name : `${this.path}.${name}`;
    return path.length > SHOWN ? `${path.slice(0, SHOWN)}…` : path;
  }
}

const SHOWN = 80;

/** A text of the image as messages show it. */
export function quoted(text: string): string {
  return `'${escapeControls(text.slice(0, SHOWN))}'`;
}

export function corrupt(text: string): BlockError {
  return new BlockError('corrupt-image', `LUKS2 header: ${text}`);
}

export function unsupported(text: string): BlockError {
  return new BlockError('unsupported', `LUKS2 header: ${text} is not supported`);
}
