// SPDX-License-Identifier: Apache-2.0
// A QMP client, typed by the declarations alone; it drives any server that speaks the protocol.
//
// Commands may overlap; replies find their command by id. Losing the connection fails everything
// that waits. An AbortSignal ends the waiting, never a command that was sent.

import type { Buffer } from 'node:buffer';
import type { Duplex } from 'node:stream';
import type { CommandName, CommandResult } from '../api/index.js';
import { BlockError } from '../base/index.js';
import type { QmpErrorClass } from '../base/index.js';
import { connectSocket } from '../host/index.js';
import { JsonStream, writeJson } from '../wire/index.js';
import type { JsonMessage } from '../wire/index.js';
import { EventStream } from './event-stream.js';
import type { QmpEvent } from './event-stream.js';
import { JobHandle } from './job-handle.js';
import { abortable } from './runner.js';
import type { CommandRunner, ExecuteRest, WaitOptions } from './runner.js';
import { readServerMessage } from './server-message.js';
import type { Greeting, ServerMessage } from './server-message.js';

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
    if (stream.destroyed) this.#lose(null);
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
    if (client.#closed !== null) client.#greet?.reject(client.#closed);
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
    if (options.signal?.aborted === true) return Promise.reject(options.signal.reason as Error);
    const id = this.#nextId;
    let text: string;
    try {
      text = writeJson({ execute: name, arguments: args, id });
    } catch (error) {
      return Promise.reject(error as Error);
    }
    this.#nextId += 1;
    const reply = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { command: name, resolve, reject });
    });
    this.#stream.write(`${text}\r\n`);
    return abortable(reply, options.signal);
  }

  /** Events from now on, each reader for itself. End it with `return`, `break` or `using`. */
  events(options: WaitOptions = {}): EventStream {
    const { signal } = options;
    const abort = (): void => stream.finish(signal?.reason);
    const stream = new EventStream((ended) => {
      signal?.removeEventListener('abort', abort);
      this.#events.delete(ended);
    });
    this.#events.add(stream);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted === true) abort();
    if (this.#closed !== null) stream.finish(null);
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
    if (this.#closed !== null) return;
    let said: ServerMessage;
    try {
      said = readServerMessage(message);
    } catch (error) {
      this.#lose(error);
      this.#stream.destroy();
      return;
    }
    if (said.kind === 'event') this.#event(said.event);
    else if (said.kind === 'reply') this.#reply(said);
    else this.#greet?.resolve(said.greeting);
  }

  #reply({ id, refusal, result }: ServerMessage & { readonly kind: 'reply' }): void {
    const [first] = this.#pending.keys();
    const key = id ?? first;
    const pending = key === undefined ? undefined : this.#pending.get(key);
    if (key === undefined || pending === undefined) return;
    this.#pending.delete(key);
    if (refusal === null) pending.resolve(result);
    else pending.reject(new QmpError(refusal.class, refusal.desc, pending.command));
  }

  #event(event: QmpEvent): void {
    for (const listener of this.#listeners) listener(event);
    for (const stream of this.#events) stream.push(event);
  }

  #lose(error: unknown): void {
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
    options.signal,
  );
  return QmpClient.over(socket, options);
}
