// SPDX-License-Identifier: Apache-2.0
// Driver names and how to load them. The engine gives the one list of loaders; code is loaded when
// a name is first used. `probed` names the formats whose content is looked at when no format is
// given, in order of preference at equal scores.
import { BlockError } from '../base/index.js';
export function createRegistry(options) {
    const loaders = new Map(Object.entries(options.drivers));
    const loaded = new Map();
    const names = [...loaders.keys()];
    const load = (name) => {
        const known = loaded.get(name);
        if (known !== undefined)
            return known;
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
