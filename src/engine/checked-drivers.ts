// SPDX-License-Identifier: Apache-2.0
// Drivers that look at the types of their options when they open, wherever those came from.
//
// Commands are checked before they are carried out, but an image's name, or the name of a backing
// file in an image of a stranger, may be `json:` with anything in it. By then the children are open
// and go by their names. Options without a driver are a job's own, and typed.

import { BlockError } from '../base/index.js';
import type { Driver, DriverLoader } from '../block/index.js';
import { ChildRole } from '../block/index.js';
import { validate } from '../schema/index.js';

export function checkedDrivers(
  loaders: Readonly<Record<string, DriverLoader>>,
): Record<string, DriverLoader> {
  return Object.fromEntries(
    Object.entries(loaders).map(([name, load]) => [name, () => load().then(checked)]),
  );
}

function checked(driver: Driver): Driver {
  return {
    ...driver,
    async open(context, options) {
      const isTyped = options['driver'] !== driver.name;
      if (isTyped || isPlain(driver, options)) return driver.open(context, options);
      const { blockdevOptions } = await import('../api/index.js');
      const given = { ...options };
      for (const [name, { role }] of Object.entries(driver.children)) {
        // Opened later, and checked then.
        if ((role & ChildRole.cow) !== 0) delete given[name];
      }
      // Of its encryption an image says the format itself.
      const encryption = given['encrypt'];
      if (isTextTree(encryption)) delete given['encrypt'];
      const own = validate(blockdevOptions, asTexts(given), '', 'keyval');
      return driver.open(context, { ...options, ...own });
    },
  };
}

/** Looked at by the opening itself, or one text: the whole declaration need not be loaded. */
const OWN = ['driver', 'node-name', 'read-only', 'auto-read-only', 'force-share', 'cache'];

function isPlain({ children }: Driver, options: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(options).every(([name, value]) => {
    if (OWN.includes(name) || value === undefined) return true;
    return Object.hasOwn(children, name) || (name === 'filename' && typeof value === 'string');
  });
}

const LIMIT = 'key-derivation-limit';
const ENCRYPTION = ['format', 'key-secret', LIMIT];

/** Throws kind `invalid-option` for a member that there is not. */
function isTextTree(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const unknown = Object.keys(value).find((name) => !ENCRYPTION.includes(name));
  if (unknown !== undefined) {
    throw new BlockError('invalid-option', `Parameter '${unknown}' is unexpected`);
  }
  return Object.entries(value).every(([name, member]) => {
    return typeof member === 'string' || (name === LIMIT && typeof member === 'number');
  });
}

/** Numbers and booleans as texts: names may hold them either way. */
function asTexts(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(asTexts);
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([name, member]) => [name, asTexts(member)]));
}
