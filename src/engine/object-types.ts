// SPDX-License-Identifier: Apache-2.0
// The types of objects that are there: what each derives from, and its properties.

import { BlockError } from '../base/index.js';
import { LIMIT_NAMES } from '../block/throttle/options.js';
import { EVENT_LOOP_PROPERTIES, IOTHREAD_PROPERTIES } from './iothread.js';
import type { PropertyFacts } from './objects.js';

interface ObjectType {
  /** Absent for the two roots, `object` and `interface`. */
  readonly parent?: string;
  readonly abstract?: true;
  readonly interfaces?: readonly string[];
  /** Beside those of the parent: name and type. */
  readonly properties?: readonly PropertyFacts[];
}

const integers = (names: readonly string[]): PropertyFacts[] =>
  names.map((name) => ({ name, type: 'int' }));

const creatable = { interfaces: ['user-creatable'] } as const;
const loopNames = Object.keys(EVENT_LOOP_PROPERTIES);
const pollNames = Object.keys(IOTHREAD_PROPERTIES).filter((name) => !loopNames.includes(name));

const TYPES: ReadonlyMap<string, ObjectType> = new Map<string, ObjectType>([
  ['object', { abstract: true, properties: [{ name: 'type', type: 'string' }] }],
  ['interface', { abstract: true }],
  ['user-creatable', { parent: 'interface', abstract: true }],
  ['container', { parent: 'object' }],
  [
    'throttle-group',
    {
      parent: 'object',
      ...creatable,
      properties: [
        { name: 'limits', type: 'ThrottleLimits' },
        ...integers(LIMIT_NAMES.map((name) => `x-${name}`)),
      ],
    },
  ],
  [
    'event-loop-base',
    { parent: 'object', abstract: true, ...creatable, properties: integers(loopNames) },
  ],
  [
    'secret_common',
    {
      parent: 'object',
      abstract: true,
      ...creatable,
      properties: [
        { name: 'iv', type: 'string' },
        { name: 'keyid', type: 'string' },
        { name: 'loaded', type: 'bool' },
        { name: 'format', type: 'QCryptoSecretFormat' },
      ],
    },
  ],
  [
    'secret',
    {
      parent: 'secret_common',
      properties: [
        { name: 'file', type: 'string' },
        { name: 'data', type: 'string' },
      ],
    },
  ],
  ['iothread', { parent: 'event-loop-base', properties: integers(pollNames) }],
  ['main-loop', { parent: 'event-loop-base' }],
  ['chardev', { parent: 'object', abstract: true }],
  ['chardev-fd', { parent: 'chardev', abstract: true }],
  ['chardev-null', { parent: 'chardev' }],
  ['chardev-ringbuf', { parent: 'chardev' }],
  ['chardev-memory', { parent: 'chardev-ringbuf' }],
  ['chardev-file', { parent: 'chardev-fd' }],
  ['chardev-pipe', { parent: 'chardev-fd' }],
  ['chardev-stdio', { parent: 'chardev-fd' }],
  [
    'chardev-socket',
    {
      parent: 'chardev',
      properties: [
        { name: 'connected', type: 'bool' },
        { name: 'addr', type: 'SocketAddress' },
      ],
    },
  ],
]);

export interface TypeFacts {
  readonly name: string;
  readonly abstract?: true;
  readonly parent?: string;
}

/** Types that are or derive from `ancestor` (all unless given); abstract ones only when asked. */
export function listObjectTypes(ancestor: string | undefined, abstract: boolean): TypeFacts[] {
  const list: TypeFacts[] = [];
  for (const [name, type] of TYPES) {
    if (type.abstract === true && !abstract) continue;
    if (ancestor !== undefined && !isA(name, ancestor)) continue;
    list.push({
      name,
      ...(type.abstract === true ? { abstract: true } : {}),
      ...(type.parent === undefined ? {} : { parent: type.parent }),
    });
  }
  return list;
}

/** Throws kind `device-not-found`, or `invalid-option` for what no object can be of. */
export function listTypeProperties(name: string): PropertyFacts[] {
  if (!TYPES.has(name)) throw new BlockError('device-not-found', `Class '${name}' not found`);
  if (!isA(name, 'object')) {
    throw new BlockError('invalid-option', "Parameter 'typename' expects a QOM type");
  }
  const properties: PropertyFacts[] = [];
  for (let type = TYPES.get(name); type !== undefined; type = TYPES.get(type.parent ?? '')) {
    properties.unshift(...(type.properties ?? []));
  }
  return properties;
}

function isA(name: string, ancestor: string): boolean {
  if (name === ancestor) return true;
  const { parent, interfaces = [] } = TYPES.get(name) ?? {};
  return [...(parent === undefined ? [] : [parent]), ...interfaces].some((above) =>
    isA(above, ancestor),
  );
}
