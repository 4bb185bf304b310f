// SPDX-License-Identifier: Apache-2.0
// --object: what is given on a command line is kept until the run begins and is made before
// anything is opened, so that options such as `throttle-group=ID` find it.
//
// An iothread is of no use to a program that runs one command, and is refused as the reference
// does; so is what this program does not have, by its name.

import { BlockError } from '../../base/index.js';
import { listObjectTypes, listTypeProperties } from '../../engine/index.js';
import type { ObjectOptions, ObjectRegistry } from '../../engine/index.js';
import { validate } from '../../schema/index.js';
import { parseObject } from '../object-option.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';

/** Thrown where a list was asked for: print it and end well. */
export class ListWanted extends Error {}

interface Noted {
  readonly text: string;
  readonly status: number;
}

const given = new WeakMap<Program, Noted[]>();

/** For the run of that program that comes next, which ends with `status` if it cannot be made. */
export function noteObject(program: Program, text: string, status = 1): void {
  const list = given.get(program);
  if (list === undefined) given.set(program, [{ text, status }]);
  else list.push({ text, status });
}

/** Makes what was noted; throws CliError for the first that cannot be, ListWanted for `help`. */
export async function makeObjects(program: Program, registry: ObjectRegistry): Promise<void> {
  const noted = given.get(program) ?? [];
  given.delete(program);
  for (const { text, status } of noted) {
    const listing = listingOf(text);
    if (listing !== null) throw new ListWanted(listing);
    try {
      await makeObject(registry, text);
    } catch (error) {
      if (error instanceof BlockError) throw new CliError(error.message, status, error);
      if (error instanceof CliError) throw new CliError(error.message, status);
      throw error;
    }
  }
}

async function makeObject(registry: ObjectRegistry, text: string): Promise<void> {
  const { tree, form } = parseObject(text);
  const type = (tree as Readonly<Record<string, unknown>>)['qom-type'];
  if (typeof type === 'string' && type.startsWith('memory-backend-')) throw notHere(type);
  const { objectOptions } = await import('../../api/index.js');
  const options = validate(objectOptions, tree, '', form) as ObjectOptions;
  if (type === 'iothread') {
    registry.requireIdentifier(options.id);
    throw notHere(type);
  }
  await registry.add(options);
}

function notHere(type: string): CliError {
  return new CliError(`invalid object type: ${type}`);
}

function listingOf(text: string): string | null {
  const [type = '', ...rest] = text.split(',');
  if (type !== 'help' && !rest.includes('help')) return null;
  const types = listObjectTypes('user-creatable', false)
    .map(({ name }) => name)
    .filter((name) => name !== 'iothread');
  if (!types.includes(type)) return listed('List of user creatable objects:', types);
  const properties = listTypeProperties(type).filter(({ name }) => name !== 'type');
  return listed(`${type} options:`, properties.map((each) => `${each.name}=<${each.type}>`));
}

function listed(title: string, items: readonly string[]): string {
  return `${[title, ...items.toSorted().map((item) => `  ${item}`)].join('\n')}\n`;
}
