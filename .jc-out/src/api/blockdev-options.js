// SPDX-License-Identifier: Apache-2.0
// The unions of all drivers' options, put together from the drivers' own declarations.
import { BLOCKDEV_BASE, blockdevOptions } from '../block/options.js';
import { driverCreateOptions, driverOptions } from '../drivers/options-catalog.js';
import { union } from '../schema/index.js';
blockdevOptions.define(union('BlockdevOptions', {
    base: BLOCKDEV_BASE,
    discriminator: 'driver',
    tagName: 'BlockdevDriver',
    branches: driverOptions,
}));
export { blockdevOptions };
/** Drivers that create nothing are accepted by name, so that the refusal says what is wrong. */
function createBranches() {
    const branches = {};
    for (const name of Object.keys(driverOptions))
        branches[name] = null;
    return { ...branches, ...driverCreateOptions };
}
export const blockdevCreateOptions = union('BlockdevCreateOptions', {
    discriminator: 'driver',
    tagName: 'BlockdevDriver',
    branches: createBranches,
});
