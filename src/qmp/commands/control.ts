// SPDX-License-Identifier: Apache-2.0
// Commands about the monitor and the program.

import { commands, VERSION } from '../../api/index.js';
import type { HandlerFamily } from '../handlers.js';

export const controlCommands: HandlerFamily<'query-version' | 'query-commands' | 'quit'> = {
  'query-version': () => VERSION,
  'query-commands': () => [...commands.keys()].map((name) => ({ name })),
  quit: (engine) => engine.shutDown(),
};
