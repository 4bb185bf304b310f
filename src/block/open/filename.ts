// SPDX-License-Identifier: Apache-2.0
// Names of images: `json:` texts, protocol prefixes, and names relative to an overlay.

import { BlockError, IMAGE_LIMITS } from '../../base/index.js';
import { JsonSyntaxError, parseJson } from '../../wire/index.js';

/** `json:{…}`, `proto:rest` or a plain path. A colon after the first slash is part of a path. */
export type ParsedName =
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'options'; readonly options: Readonly<Record<string, unknown>> };

/** The one name there is for a null-co node; its size is the default one. */
const NULL_NAME = 'null-co://';
const NULL_AIO_NAME = 'null-aio://';

/** What names that images can be opened by begin with; only files are made. */
const PROTOCOLS = new Set(['null-co', 'null-aio', 'blkdebug', 'blkverify', 'nbd', 'host_device']);

const PREFIX = /^([^:/]*):/;

export function parseFilename(name: string): ParsedName {
  if (name.startsWith('json:')) return { kind: 'options', options: jsonOptions(name) };
  const prefix = PREFIX.exec(name)?.[1];
  if (prefix === undefined) return { kind: 'path', path: name };
  if (prefix === 'file') return { kind: 'path', path: fileUrlPath(name) };
  if (prefix === 'host_device') {
    const filename = name.slice(prefix.length + 1);
    return { kind: 'options', options: { driver: 'host_device', filename } };
  }
  if (prefix === 'blkdebug') return { kind: 'options', options: { file: debugOptions(name) } };
  if (prefix === 'blkverify') return { kind: 'options', options: { file: verifyOptions(name) } };
  if (name === NULL_NAME) return { kind: 'options', options: { driver: 'null-co' } };
  if (name === NULL_AIO_NAME) return { kind: 'options', options: { driver: 'null-aio' } };
  if (prefix === 'null-co' || prefix === 'null-aio') {
    const text = `The only allowed filename for this driver is '${prefix}://'`;
    throw new BlockError('invalid-option', text, { path: name });
  }
  if (prefix === 'nbd' || prefix.startsWith('nbd+')) {
    return { kind: 'options', options: { driver: 'nbd', filename: name } };
  }
  throw new BlockError('invalid-option', `Unknown protocol '${prefix}'`, { path: name });
}

/** A name to make an image by: what stores it, and where. */
export interface CreationPlace {
  readonly protocol: string;
  /** Without the prefix of files and devices. */
  readonly path: string;
}

/** Throws kind `invalid-option` for a prefix that stands for no protocol. */
export function creationPlace(name: string): CreationPlace {
  const prefix = PREFIX.exec(name)?.[1];
  if (prefix === undefined) return { protocol: 'file', path: name };
  if (prefix === 'file') return { protocol: 'file', path: fileUrlPath(name) };
  const protocol = prefix.startsWith('nbd+') ? 'nbd' : prefix;
  if (!PROTOCOLS.has(protocol)) {
    throw new BlockError('invalid-option', `Unknown protocol '${prefix}'`);
  }
  const path = protocol === 'host_device' ? name.slice(prefix.length + 1) : name;
  return { protocol, path };
}

/** The path of the file to make for an image of that name; throws where none can be made. */
export function creationPath(name: string): string {
  const { protocol, path } = creationPlace(name);
  if (protocol === 'file') return path;
  const text = `Protocol driver '${protocol}' does not support image creation`;
  throw new BlockError('unsupported', text);
}

/** `blkdebug:CONFIG:NAME`, the file of rules mostly left empty. */
function debugOptions(name: string): Readonly<Record<string, unknown>> {
  const text = 'blkdebug requires both config file and image path';
  const [config, image] = twoNames(name, text);
  const rules = config === '' ? {} : { config };
  return { driver: 'blkdebug', ...rules, image: fileOptions(image) };
}

/** `blkverify:RAW:NAME`: a file, and an image whose format is found. */
function verifyOptions(name: string): Readonly<Record<string, unknown>> {
  const [raw, test] = twoNames(name, 'blkverify requires raw copy and original image path');
  const image = parseFilename(test);
  return {
    driver: 'blkverify',
    raw: fileOptions(raw),
    test: image.kind === 'path' ? { file: fileOptions(test) } : image.options,
  };
}

/** What stands before and after the second colon. */
function twoNames(name: string, refusal: string): readonly [string, string] {
  const rest = name.slice(name.indexOf(':') + 1);
  const colon = rest.indexOf(':');
  if (colon >= 0) return [rest.slice(0, colon), rest.slice(colon + 1)];
  throw new BlockError('invalid-option', refusal, { path: name });
}

function fileOptions(name: string): Readonly<Record<string, unknown>> {
  const parsed = parseFilename(name);
  if (parsed.kind === 'options') return parsed.options;
  if (parsed.path !== '') return { driver: 'file', filename: parsed.path };
  throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
}

/** A path that would itself look like a protocol and a name is made to be a path. */
function fileUrlPath(name: string): string {
  const path = name.slice('file:'.length);
  return PREFIX.test(path) ? `./${path}` : path;
}

function jsonOptions(name: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = parseJson(name.slice('json:'.length));
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    throw new BlockError('invalid-option', `Could not parse the JSON options: ${error.message}`, {
      path: name,
      cause: error,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new BlockError('invalid-option', 'Invalid JSON object given', { path: name });
  }
  return nestDotted(value as Record<string, unknown>, 0);
}

/** `file.filename` members become nested objects. */
function nestDotted(value: Record<string, unknown>, depth: number): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value)) {
    const path = key.split('.');
    if (depth + path.length > IMAGE_LIMITS.jsonNameDepth) {
      throw new BlockError('invalid-option', 'JSON options of an image are nested too deeply');
    }
    setMember(result, path, nestMember(member, depth + path.length));
  }
  return withLists(result);
}

function nestMember(member: unknown, depth: number): unknown {
  if (typeof member !== 'object' || member === null) return member;
  if (!Array.isArray(member)) return nestDotted(member as Record<string, unknown>, depth);
  return member.map((item) => (Array.isArray(item) ? item : nestMember(item, depth)));
}

/** Objects whose members are numbered from 0 become lists. */
function withLists(value: Record<string, unknown>): Record<string, unknown> {
  for (const [key, member] of Object.entries(value)) {
    if (typeof member !== 'object' || member === null || Array.isArray(member)) continue;
    const inner = withLists(member as Record<string, unknown>);
    const items = Object.values(inner);
    const isList =
      items.length > 0 && Object.keys(inner).every((name, index) => name === String(index));
    if (isList) define(value, key, items);
  }
  return value;
}

function setMember(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = target;
  for (const part of path.slice(0, -1)) {
    const present = Object.hasOwn(at, part) ? at[part] : undefined;
    if (typeof present === 'object' && present !== null) {
      at = present as Record<string, unknown>;
    } else {
      const next: Record<string, unknown> = {};
      define(at, part, next);
      at = next;
    }
  }
  define(at, path.at(-1) ?? '', value);
}

/** Also for names like `__proto__`, which plain assignment would treat specially. */
function define(target: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(target, key, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  });
}

/** A backing name as the overlay's header gives it, made relative to where the overlay is. */
export function resolveBackingName(overlay: string, name: string): string {
  if (name.startsWith('/') || PREFIX.test(name)) return name;
  if (overlay === '' || overlay.startsWith('json:')) {
    throw new BlockError(
      'invalid-option',
      `Cannot use relative backing file names for '${overlay}'`,
      { path: overlay },
    );
  }
  const slash = overlay.lastIndexOf('/');
  return slash < 0 ? name : overlay.slice(0, slash + 1) + name;
}
