// SPDX-License-Identifier: Apache-2.0
// Events of a connection as an async iterable: one queue for each reader, bounded.

import { BlockError, QMP_LIMITS } from '../base/index.js';
import type { EventData, EventName } from '../api/index.js';

/** An event as declared; `data` of an undeclared one is unknown. */
export type QmpEvent =
  | {
      readonly [N in EventName]: {
        readonly event: N;
        readonly data: EventData<N>;
        /** Microseconds since the epoch, by the server's clock. */
        readonly at: number;
      };
    }[EventName];

export class EventStream implements AsyncIterableIterator<QmpEvent, undefined>, Disposable {
  readonly #queue: QmpEvent[] = [];
  readonly #stop: () => void;
  readonly #waiting: {
    resolve(result: IteratorResult<QmpEvent, undefined>): void;
    reject(error: unknown): void;
  }[] = [];
  #end: { readonly error: unknown } | null = null;

  /** `stop` is called once when the reader stops. */
  constructor(stop: (stream: EventStream) => void) {
    this.#stop = () => stop(this);
  }

  push(event: QmpEvent): void {
    if (this.#end !== null) return;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve({ done: false, value: event });
    } else if (this.#queue.length < QMP_LIMITS.clientEvents) {
      this.#queue.push(event);
    } else {
      this.finish(new BlockError('busy', 'Too many events were left unread'));
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

  next(): Promise<IteratorResult<QmpEvent, undefined>> {
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
      this.#waiting.push({ resolve, reject });
    });
  }

  return(): Promise<IteratorResult<QmpEvent, undefined>> {
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
