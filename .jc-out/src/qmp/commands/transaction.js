// SPDX-License-Identifier: Apache-2.0
// The transaction command.
import { runTransaction } from '../transaction/index.js';
export const transactionCommands = {
    transaction: (engine, { actions, properties }) => runTransaction(engine, actions, properties?.['completion-mode'] ?? 'individual'),
};
