// SPDX-License-Identifier: Apache-2.0
// What a server may say: a greeting, an event, a reply. Anything else is nonsense, and the client
// ends the connection instead of guessing what was meant.

import { BlockError, JsonDouble } from '../base/index.js';
import type { JsonObject, JsonValue, QmpErrorClass } from '../base/index.js';
import type { JsonMessage } from '../wire/index.js';
import type { QmpEvent } from './event-stream.js';

export interface Greeting {
  readonly version: {
    readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
    readonly package: string;
  };
  readonly capabilities: readonly string[];
}

export type ServerMessage =
  | { readonly kind: 'greeting'; readonly greeting: Greeting }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | {
      readonly kind: 'reply';
      /** Null in a refusal of what could not be parsed. */
      readonly id: number | null;
      readonly result: unknown;
      readonly refusal: { readonly class: QmpErrorClass; readonly desc: string } | null;
    };

/** Throws kind `io` for what no server says. */
export function readServerMessage(message: JsonMessage): ServerMessage {
  if (!message.ok) throw new BlockError('io', `The server sent no JSON: ${message.error}`);
  const value = membersOf(message.value, 'a message');
  if ('QMP' in value) return { kind: 'greeting', greeting: readGreeting(value) };
  if ('event' in value) return { kind: 'event', event: readEvent(value) };
  const { id, error } = value;
  const key = readId(id);
  if (error !== undefined) {
    const { class: errorClass, desc } = membersOf(error, 'an error');
    if (typeof errorClass !== 'string' || typeof desc !== 'string') throw nonsense('an error');
    const refusal = { class: errorClass as QmpErrorClass, desc };
    return { kind: 'reply', id: key, result: undefined, refusal };
  }
  if (value['return'] === undefined || key === null) throw nonsense('a reply');
  return { kind: 'reply', id: key, result: plain(value['return']), refusal: null };
}

function readId(id: JsonValue | undefined): number | null {
  if (id === undefined) return null;
  if (typeof id !== 'number') throw nonsense('a reply');
  return id;
}

function readGreeting(value: JsonObject): Greeting {
  const { version, capabilities } = membersOf(value['QMP'], 'a greeting');
  membersOf(membersOf(version, 'a greeting')['qemu'], 'a greeting');
  if (!Array.isArray(capabilities)) throw nonsense('a greeting');
  return plain(value['QMP']) as Greeting;
}

function readEvent(value: JsonObject): QmpEvent {
  const { event, data, timestamp } = value;
  const { seconds, microseconds } = membersOf(timestamp, 'an event');
  const isTimed = typeof seconds === 'number' && typeof microseconds === 'number';
  if (typeof event !== 'string' || !isTimed) throw nonsense('an event');
  const at = seconds * 1_000_000 + microseconds;
  return { event, data: plain(data ?? {}), at } as QmpEvent;
}

function membersOf(value: JsonValue | undefined, what: string): JsonObject {
  const isObject =
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof JsonDouble);
  if (!isObject) throw nonsense(what);
  return value as JsonObject;
}

function nonsense(what: string): BlockError {
  return new BlockError('io', `The server sent ${what} of a shape that QMP does not have`);
}

/** Doubles as numbers, objects as ordinary ones; depth is bounded by the stream. */
function plain(value: JsonValue | undefined): unknown {
  if (value instanceof JsonDouble) return value.value;
  if (Array.isArray(value)) return value.map((item) => plain(item as JsonValue));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}
