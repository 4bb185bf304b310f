// SPDX-License-Identifier: Apache-2.0
// All handlers by command name. A declared command without a handler does not build.
import { bitmapCommands } from './bitmap.js';
import { blockChangeCommands } from './block-change.js';
import { blockCoreCommands } from './block-core.js';
import { blockJobCommands } from './block-job.js';
import { blockQueryCommands } from './block-query.js';
import { charCommands } from './char.js';
import { controlCommands } from './control.js';
import { jobCommands } from './job.js';
import { objectCommands } from './object.js';
import { transactionCommands } from './transaction.js';
const all = {
    ...controlCommands,
    ...jobCommands,
    ...blockJobCommands,
    ...blockCoreCommands,
    ...blockQueryCommands,
    ...blockChangeCommands,
    ...bitmapCommands,
    ...charCommands,
    ...objectCommands,
    ...transactionCommands,
};
export const engineCommands = new Map(Object.entries(all).map(([name, handler]) => [name, handler]));
