// SPDX-License-Identifier: Apache-2.0
// The unions of all drivers' options, put together from the drivers' own declarations.

import { BLOCKDEV_BASE, blockdevOptions } from '../block/options.js';
import {
  driverAmendOptions,
  driverCreateOptions,
  driverOptions,
} from '../drivers/options-catalog.js';
import { union } from '../schema/index.js';
import type { StructType, Type } from '../schema/index.js';

blockdevOptions.define(
  union('BlockdevOptions', {
    base: BLOCKDEV_BASE,
    discriminator: 'driver',
    tagName: 'BlockdevDriver',
    branches: driverOptions,
  }),
);

export { blockdevOptions };

/** Every driver is accepted by name, so that the refusal says what is wrong. */
type NamedOptionsValue = Readonly<Record<string, unknown>> & { readonly driver: string };

function branchesOf(some: Record<string, StructType>): Record<string, StructType | null> {
  const branches: Record<string, StructType | null> = {};
  for (const name of Object.keys(driverOptions)) branches[name] = null;
  return { ...branches, ...some };
}

export const blockdevCreateOptions = union('BlockdevCreateOptions', {
  discriminator: 'driver',
  tagName: 'BlockdevDriver',
  branches: () => branchesOf(driverCreateOptions),
}) as Type<NamedOptionsValue>;

export const blockdevAmendOptions = union('BlockdevAmendOptions', {
  discriminator: 'driver',
  tagName: 'BlockdevDriver',
  branches: () => branchesOf(driverAmendOptions),
}) as Type<NamedOptionsValue>;
