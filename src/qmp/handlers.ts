// SPDX-License-Identifier: Apache-2.0
// What a command handler is: bound to a declaration by name, given checked arguments.

import type { Engine } from '../engine/index.js';
import type { CommandArguments, CommandName, CommandResult } from '../api/index.js';

type Result<N extends CommandName> =
  CommandResult<N> extends Record<string, never> ? void : CommandResult<N>;

export type Handler<N extends CommandName> = (
  engine: Engine,
  args: CommandArguments<N>,
) => Result<N> | Promise<Result<N>>;

/** qmp_capabilities belongs to the session, not to the engine. */
export type EngineCommand = Exclude<CommandName, 'qmp_capabilities'>;

/** A family of handlers, in one file of commands/. */
export type HandlerFamily<N extends EngineCommand> = { readonly [K in N]: Handler<K> };
