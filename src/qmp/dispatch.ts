// SPDX-License-Identifier: Apache-2.0
// From a parsed message to its reply: shape of the request, lookup, arguments, handler, errors.
//
// Errors are found in the order clients rely on: shape, then command, then arguments, and nothing
// has happened before the last argument is checked. An assertion failure is not answered: it ends
// the program.

import { commands } from '../api/index.js';
import { BlockError, toBlockError } from '../base/index.js';
import type { JsonObject, JsonValue, QmpErrorClass } from '../base/index.js';
import type { Engine } from '../engine/index.js';
import { checkInput, requireAllowed, validate, visibleOutput } from '../schema/index.js';
import type { CommandDeclaration, CompatPolicy } from '../schema/index.js';
import { RawJson } from '../wire/index.js';
import { doneAhead } from './ahead.js';
import { engineCommands } from './commands/index.js';

export type Reply = Readonly<Record<string, unknown>>;

export class RequestError extends Error {
  readonly errorClass: QmpErrorClass;

  constructor(message: string, errorClass: QmpErrorClass = 'GenericError') {
    // Clients make them by the million, and taking the stack would cost the most.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(message);
    Error.stackTraceLimit = stackTraceLimit;
    this.name = 'RequestError';
    this.errorClass = errorClass;
  }
}

/** A request of good shape. */
export interface Request {
  readonly command: string;
  readonly outOfBand: boolean;
  readonly args: JsonObject;
}

/** A request, or what is wrong with the shape of a message. */
export function readRequest(value: JsonValue, oobEnabled: boolean): Request | RequestError {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || !isPlain(value)) {
    return new RequestError('QMP input must be a JSON object');
  }
  const message = value as JsonObject;
  for (const [name, member] of Object.entries(message)) {
    const mistake = memberMistake(name, member, oobEnabled);
    if (mistake !== null) return new RequestError(`QMP input member '${name}' ${mistake}`);
  }
  const clash = 'execute' in message && 'exec-oob' in message;
  if (clash) return new RequestError("QMP input member 'execute' clashes with 'exec-oob'");
  const outOfBand = 'exec-oob' in message;
  const command = outOfBand ? message['exec-oob'] : message['execute'];
  if (typeof command !== 'string') return new RequestError("QMP input lacks member 'execute'");
  return { command, outOfBand, args: (message['arguments'] ?? {}) as JsonObject };
}

function isPlain(value: object): boolean {
  return Object.getPrototypeOf(value) === null;
}

function memberMistake(name: string, member: JsonValue, oobEnabled: boolean): string | null {
  if (name === 'execute' || (name === 'exec-oob' && oobEnabled)) {
    return typeof member === 'string' ? null : 'must be a string';
  }
  if (name === 'arguments') {
    const isObject = typeof member === 'object' && member !== null && isPlain(member);
    return isObject ? null : 'must be an object';
  }
  return name === 'id' ? null : 'is unexpected';
}

export function errorReply(error: unknown, idText: string | null): Reply {
  const id = idText === null ? {} : { id: new RawJson(idText) };
  if (error instanceof RequestError) {
    return { ...id, error: { class: error.errorClass, desc: error.message } };
  }
  const failure = error instanceof BlockError ? error : toBlockError(error);
  return { ...id, error: { class: failure.qmpClass, desc: failure.message } };
}

export function returnReply(result: unknown, idText: string | null): Reply {
  return { return: result ?? {}, ...(idText === null ? {} : { id: new RawJson(idText) }) };
}

/** The declaration of a command that may be used; throws RequestError or BlockError. */
export function findCommand(request: Request, compat: CompatPolicy): CommandDeclaration {
  const found = commands.get(request.command);
  if (found === undefined) {
    throw new RequestError(
      `The command ${request.command} has not been found`,
      'CommandNotFound',
    );
  }
  const { name, features } = found;
  requireAllowed(compat, { kind: 'command', name, features });
  if (request.outOfBand && !found.allowOob) {
    throw new RequestError(`The command ${request.command} does not support OOB`);
  }
  return found;
}

/** Runs a command that is not the session's own; gives what it returns. */
export async function runCommand(engine: Engine, request: Request): Promise<unknown> {
  const { compat } = engine;
  const declaration = findCommand(request, compat);
  const args = validate(declaration.args, request.args);
  checkInput(compat, declaration.args, args);
  const handler = engineCommands.get(declaration.name);
  if (handler === undefined) throw new RequestError('Command is not available', 'CommandNotFound');
  const work = async (): Promise<unknown> => {
    if (declaration.name !== 'quit') engine.requireUp();
    return visibleOutput(compat, declaration.returns, await handler(engine, args));
  };
  if (doneAhead(engine, declaration.name, args)) return {};
  return request.outOfBand ? work() : engine.exclusive(work);
}
