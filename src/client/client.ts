// SPDX-License-Identifier: Apache-2.0
// A QMP client, typed by the declarations alone; it drives any server that speaks the protocol.
//
// Commands may overlap; replies find their command by id. Losing the connection fails everything
// that waits. An AbortSignal ends the waiting, never the command.

import type { Buffer } from 'node:buffer';
import type { Duplex } from 'node:stream';
import type { CommandName, CommandResult } from '../api/index.js';
import { BlockError, JsonDouble } from '../base/index.js';
import type { JsonObject, JsonValue, QmpErrorClass } from '../base/index.js';
import { connectSocket } from '../host/index.js';
import { JsonStream, writeJson } from '../wire/index.js';
import type { JsonMessage } from '../wire/index.js';
import { EventStream } from './event-stream.js';
import type { QmpEvent } from './event-stream.js';
import { JobHandle } from './job-handle.js';
import { abortable } from './runner.js';
import type { CommandRunner, ExecuteRest, WaitOptions } from './runner.js';

export type ClientAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/** The server refused a command. */
export class QmpError extends Error {
  constructor(
    readonly errorClass: QmpErrorClass,
    /** The server's own words. */
    readonly description: string,
    readonly command: string,
  ) {
    super(`${command}: ${description}`);
    this.name = 'QmpError';
  }
}

export interface Greeting {
  readonly version: {
    readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
    readonly package: string;
  };
  readonly capabilities: readonly string[];
}

interface Pending {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

const CONNECTION_LOST = 'The QMP connection was closed';

export class QmpClient implements CommandRunner, AsyncDisposable {
  readonly #stream: Duplex;
  readonly #pending = new Map<number, Pending>();
  readonly #events = new Set<EventStream>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #parser = new JsonStream((message) => this.#receive(message));
  #greet: { resolve(greeting: Greeting): void; reject(error: unknown): void } | null = null;
  #greeting: Greeting | null = null;
  #nextId = 1;
  #closed: Error | null = null;
  readonly #whenClosed: Promise<void>;

  private constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer) => this.#parser.feed(chunk));
    stream.on('error', (error) => this.#lose(error));
    stream.on('end', () => this.#lose(null));
    this.#whenClosed = new Promise((resolve) => {
      stream.once('close', () => {
        this.#lose(null);
        resolve();
      });
    });
  }

  /** Waits for the greeting and negotiates; `capabilities` are those to enable. */
  static async over(
    stream: Duplex,
    options: WaitOptions & { readonly capabilities?: readonly 'oob'[] } = {},
  ): Promise<QmpClient> {
    const client = new QmpClient(stream);
    const greeted = new Promise<Greeting>((resolve, reject) => {
      client.#greet = { resolve, reject };
    });
    try {
      client.#greeting = await abortable(greeted, options.signal);
      const enable = options.capabilities ?? [];
      const args = enable.length === 0 ? {} : { enable };
      await client.execute('qmp_capabilities', args, options);
    } catch (error) {
      stream.destroy();
      throw error;
    }
    return client;
  }

  get greeting(): Greeting {
    if (this.#greeting === null) throw new BlockError('closed', 'No greeting yet');
    return this.#greeting;
  }

  /** Runs a declared command; rejects with QmpError when the server refuses. */
  execute<N extends CommandName>(
    name: N,
    ...[args, options]: ExecuteRest<N>
  ): Promise<CommandResult<N>> {
    const plain = args as Readonly<Record<string, unknown>> | undefined;
    return this.executeAny(name, plain ?? {}, options) as Promise<CommandResult<N>>;
  }

  /** Runs any command of the server, declared here or not. */
  executeAny(
    name: string,
    args: Readonly<Record<string, unknown>> = {},
    options: WaitOptions = {},
  ): Promise<unknown> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    const id = this.#nextId;
    this.#nextId += 1;
    const reply = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { command: name, resolve, reject });
    });
    this.#stream.write(`${writeJson({ execute: name, arguments: args, id })}\r\n`);
    return abortable(reply, options.signal);
  }

  /** Events from now on, each reader for itself. End it with `return`, `break` or `using`. */
  events(options: WaitOptions = {}): EventStream {
    const stream = new EventStream((ended) => this.#events.delete(ended));
    if (this.#closed !== null) stream.finish(null);
    else this.#events.add(stream);
    const { signal } = options;
    if (signal?.aborted === true) stream.finish(signal.reason);
    signal?.addEventListener('abort', () => stream.finish(signal.reason), { once: true });
    return stream;
  }

  /** Calls back for each event, before readers of events() see it, until the result is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** A handle that watches job `id` from now on: make it before the command that starts the job. */
  job(id: string): JobHandle {
    return new JobHandle(this, id);
  }

  /** Resolves when the connection has ended, whoever ended it. */
  get closed(): Promise<void> {
    return this.#whenClosed;
  }

  async close(): Promise<void> {
    this.#lose(null);
    this.#stream.end();
    this.#stream.destroy();
    await this.#whenClosed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #receive(message: JsonMessage): void {
    if (!message.ok) {
      this.#lose(new BlockError('io', `The server sent no JSON: ${message.error}`));
      this.#stream.destroy();
      return;
    }
    const value = message.value as JsonObject;
    if (this.#greet !== null && 'QMP' in value) {
      this.#greet.resolve(plain(value['QMP'] as JsonValue) as Greeting);
      this.#greet = null;
    } else if (typeof value['event'] === 'string') {
      this.#event(value);
    } else {
      this.#reply(value);
    }
  }

  #reply(value: JsonObject): void {
    const id = value['id'];
    const key = typeof id === 'number' ? id : [...this.#pending.keys()][0];
    const pending = key === undefined ? undefined : this.#pending.get(key);
    if (key === undefined || pending === undefined) return;
    this.#pending.delete(key);
    const error = value['error'] as { readonly class: QmpErrorClass; readonly desc: string };
    if (error === undefined) pending.resolve(plain(value['return'] as JsonValue));
    else pending.reject(new QmpError(error.class, error.desc, pending.command));
  }

  #event(value: JsonObject): void {
    const stamp = value['timestamp'] as { readonly seconds: number; readonly microseconds: number };
    const event = {
      event: value['event'],
      data: plain(value['data'] ?? {}),
      at: stamp.seconds * 1_000_000 + stamp.microseconds,
    } as QmpEvent;
    for (const listener of this.#listeners) listener(event);
    for (const stream of this.#events) stream.push(event);
  }

  #lose(error: Error | null): void {
    if (this.#closed !== null) return;
    this.#closed = new BlockError(
      'closed',
      CONNECTION_LOST,
      error === null ? {} : { cause: error },
    );
    this.#greet?.reject(this.#closed);
    for (const pending of this.#pending.values()) pending.reject(this.#closed);
    this.#pending.clear();
    for (const stream of this.#events) stream.finish(null);
  }
}

/** Connects, waits for the greeting and negotiates. */
export async function connect(
  address: ClientAddress,
  options: WaitOptions & { readonly capabilities?: readonly 'oob'[] } = {},
): Promise<QmpClient> {
  const socket = await connectSocket(
    'path' in address ? { type: 'unix', ...address } : { type: 'inet', ...address },
  );
  return QmpClient.over(socket, options);
}

/** Doubles as numbers, objects as ordinary ones; depth is bounded by the stream. */
function plain(value: JsonValue): unknown {
  if (value instanceof JsonDouble) return value.value;
  if (Array.isArray(value)) return value.map((item) => plain(item as JsonValue));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}
