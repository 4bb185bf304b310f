// SPDX-License-Identifier: Apache-2.0
// The transaction command.

import type { HandlerFamily } from '../handlers.js';
import { runTransaction } from '../transaction/index.js';

export const transactionCommands: HandlerFamily<'transaction'> = {
  transaction: (engine, { actions, properties }) =>
    runTransaction(engine, actions, properties?.['completion-mode'] ?? 'individual'),
};
