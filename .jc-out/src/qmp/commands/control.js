// SPDX-License-Identifier: Apache-2.0
// Commands about the monitor and the program.
import { commands, events, VERSION } from '../../api/index.js';
import { introspect } from '../../schema/index.js';
export const controlCommands = {
    'query-version': () => VERSION,
    'query-commands': () => [...commands.keys()].map((name) => ({ name })),
    'query-qmp-schema': () => introspect(commands.values(), events.values()),
    quit: (engine) => engine.shutDown(),
};
