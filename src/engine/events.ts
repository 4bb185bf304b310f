// SPDX-License-Identifier: Apache-2.0
// Events on their way from jobs and nodes to whoever listens.
//
// Delivery is synchronous and in the order of emission, so an event that a command causes is
// written before the command's reply. Listeners must not throw.

import type { Clock } from '../base/index.js';

export interface EngineEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** Microseconds since the epoch. */
  readonly at: number;
}

export type EventListener = (event: EngineEvent) => void;

export class EventBus {
  readonly #listeners = new Set<EventListener>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  emit(name: string, data: Readonly<Record<string, unknown>>): void {
    const event: EngineEvent = { name, data, at: this.#clock.wallMicroseconds() };
    for (const listener of this.#listeners) listener(event);
  }

  /** Calls `listener` for each event until the result is called. */
  subscribe(listener: EventListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
