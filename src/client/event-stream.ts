// SPDX-License-Identifier: Apache-2.0
// Events of a connection as an async iterable: one queue for each reader, bounded.
//
// A reader gets every event that arrives after it was made, in order, and then the end: done when
// this side closed, an error when the connection was lost or the queue was full.

import { BlockError, QMP_LIMITS } from '../base/index.js';
import type { EventData, EventName } from '../api/index.js';
import type { WaitOptions } from './runner.js';

/** An event as declared; one that is not declared here has the same shape, its data unknown. */
export type QmpEvent<N extends EventName = EventName> = {
  readonly [M in N]: {
    readonly event: M;
    readonly data: EventData<M>;
    /** Microseconds since the epoch, by the server's clock. */
    readonly at: number;
  };
}[N];

/** An event that the declarations may not know. */
export interface AnyEvent {
  readonly event: string;
  readonly data: unknown;
  readonly at: number;
}

export interface EventOptions extends WaitOptions {
  /** How many events may be left unread before the reading fails. */
  readonly buffer?: number;
}

interface Reading {
  resolve(result: IteratorResult<unknown, undefined>): void;
  reject(error: unknown): void;
}

export class EventStream<E extends AnyEvent = QmpEvent>
  implements AsyncIterableIterator<E, undefined>, Disposable, AsyncDisposable
{
  readonly #queue: E[] = [];
  readonly #names: ReadonlySet<string> | null;
  readonly #limit: number;
  readonly #stop: () => void;
  readonly #waiting: Reading[] = [];
  #end: { readonly error: unknown } | null = null;

  /** `stop` is called once when the reader stops; no names means every event. */
  constructor(
    stop: () => void,
    options: { readonly names?: readonly string[]; readonly buffer?: number } = {},
  ) {
    this.#stop = stop;
    this.#names = options.names === undefined ? null : new Set(options.names);
    this.#limit = options.buffer ?? QMP_LIMITS.clientEvents;
  }

  push(event: AnyEvent): void {
    if (this.#end !== null || this.#names?.has(event.event) === false) return;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve({ done: false, value: event });
    } else if (this.#queue.length < this.#limit) {
      this.#queue.push(event as E);
    } else {
      this.finish(new BlockError('busy', `More than ${this.#limit} events were left unread`));
    }
  }

  /** No more events; with an error the reader gets it after what is queued. */
  finish(error: unknown): void {
    if (this.#end !== null) return;
    this.#end = { error };
    this.#stop();
    const [first, ...others] = this.#waiting.splice(0);
    if (error === null) first?.resolve({ done: true, value: undefined });
    else if (first !== undefined) {
      first.reject(error);
      this.#end = { error: null };
    }
    for (const waiting of others) waiting.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<E, undefined>> {
    const event = this.#queue.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.#end !== null) {
      const { error } = this.#end;
      this.#end = { error: null };
      return error === null
        ? Promise.resolve({ done: true, value: undefined })
        : Promise.reject(error as Error);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve: resolve as Reading['resolve'], reject });
    });
  }

  return(): Promise<IteratorResult<E, undefined>> {
    this.finish(null);
    this.#queue.length = 0;
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.dispose](): void {
    void this.return();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.return().then(() => undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
