// SPDX-License-Identifier: Apache-2.0
// Driver names and how to load them. The engine gives the one list of loaders; code is loaded when
// a name is first used. `probed` names the formats whose content is looked at when no format is
// given, in order of preference at equal scores.

import { BlockError } from '../base/index.js';
import type { Driver } from './driver.js';

export type DriverLoader = () => Promise<Driver>;

export interface DriverRegistry {
  readonly names: readonly string[];
  has(name: string): boolean;
  /** Throws kind `invalid-option` for an unknown name. */
  load(name: string): Promise<Driver>;
  /** Drivers that can recognise a format. */
  probed(): Promise<readonly Driver[]>;
}

export interface RegistryOptions {
  readonly drivers: Readonly<Record<string, DriverLoader>>;
  /** Formats to probe for; absent: every driver that has a probe function. */
  readonly probed?: readonly string[];
}

export function createRegistry(options: RegistryOptions): DriverRegistry {
  const loaders = new Map(Object.entries(options.drivers));
  const loaded = new Map<string, Promise<Driver>>();
  const names = [...loaders.keys()];
  const load = (name: string): Promise<Driver> => {
    const known = loaded.get(name);
    if (known !== undefined) return known;
    const loader = loaders.get(name);
    if (loader === undefined) {
      return Promise.reject(new BlockError('invalid-option', `Unknown driver '${name}'`));
    }
    const driver = loader();
    loaded.set(name, driver);
    return driver;
  };
  return {
    names,
    has: (name) => loaders.has(name),
    load,
    async probed() {
      const drivers = await Promise.all((options.probed ?? names).map(load));
      return drivers.filter((driver) => driver.probe !== undefined);
    },
  };
}
