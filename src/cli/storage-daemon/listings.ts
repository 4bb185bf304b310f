// SPDX-License-Identifier: Apache-2.0
// What `--object help`, `--object TYPE,help`, `--chardev help` and `-T help` print: what
// there is.

import { CHARDEV_KINDS } from '../../engine/chardev/index.js';
import { listObjectTypes, listTypeProperties } from '../../engine/index.js';
import { traceListing } from '../trace.js';
import type { Listing } from '../trace.js';

/** The list that the value of an option asks for and the status it ends with; or null. */
export function listingOf(option: string, value: string): Listing | null {
  if (option === 'trace') return traceListing(value);
  const text = textOf(option, value);
  return text === null ? null : { text, status: 0 };
}

function textOf(option: string, value: string): string | null {
  if (option === 'chardev' && value === 'help') {
    return listed('Available chardev backend types:', CHARDEV_KINDS);
  }
  if (option !== 'object') return null;
  const types = listObjectTypes('user-creatable', false).map(({ name }) => name);
  const [type = '', ...rest] = value.split(',');
  if (rest.includes('help') && types.includes(type)) {
    const properties = listTypeProperties(type).filter(({ name }) => name !== 'type');
    return listed(
      `${type} options:`,
      properties.map((each) => `${each.name}=<${each.type}>`).toSorted(),
    );
  }
  if (value !== 'help' && !rest.includes('help')) return null;
  return listed('List of user creatable objects:', types.toSorted());
}

function listed(title: string, items: readonly string[]): string {
  return `${[title, ...items.map((item) => `  ${item}`)].join('\n')}\n`;
}
