// SPDX-License-Identifier: Apache-2.0
// A QMP client, typed by the declarations alone; it drives any server that speaks the protocol.
//
// Commands may overlap; replies find their command by id. Losing the connection fails everything
// that waits with one error of kind `closed`, whose cause says why. An AbortSignal ends the
// waiting, never a command that was sent. Events reach listeners and readers in the order of
// arrival, before whoever awaits a later reply goes on.

import { Buffer } from 'node:buffer';
import type { Duplex } from 'node:stream';
import type { CommandName, CommandResult, EventName } from '../api/index.js';
import { BlockError } from '../base/index.js';
import type { QmpErrorClass } from '../base/index.js';
import { connectSocket } from '../host/index.js';
import { JsonStream, writeJson } from '../wire/index.js';
import type { JsonMessage } from '../wire/index.js';
import { EventStream } from './event-stream.js';
import type { AnyEvent, EventOptions, QmpEvent } from './event-stream.js';
import { JobHandle } from './job-handle.js';
import { abortable } from './runner.js';
import type { CommandRunner, ExecuteOptions, ExecuteRest, WaitOptions } from './runner.js';
import type { JobArguments, JobCommandName } from './runner.js';
import { readServerMessage } from './server-message.js';
import type { Greeting, ServerMessage } from './server-message.js';
import { ServerSchema } from './server-schema.js';

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

export interface ConnectOptions extends WaitOptions {
  /** Capabilities to enable; the server refuses what it did not offer. */
  readonly capabilities?: readonly 'oob'[];
}

const CONNECTION_LOST = 'The QMP connection was closed';

export class QmpClient implements CommandRunner, AsyncDisposable {
  readonly #stream: Duplex;
  readonly #pending = new Map<number, Pending>();
  readonly #events = new Set<EventStream>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #losers = new Set<(error: BlockError) => void>();
  readonly #parser = new JsonStream((message) => this.#receive(message));
  #greet: { resolve(greeting: Greeting): void; reject(error: unknown): void } | null = null;
  #greeting: Greeting | null = null;
  #schema: Promise<ServerSchema> | null = null;
  #nextId = 1;
  #closed: BlockError | null = null;
  /** The server said yes to `quit`: that it goes away is no surprise. */
  #isQuitting = false;
  readonly #whenClosed: Promise<void>;

  private constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer | string) => {
      // A stream may be given that decodes, or that was made of strings.
      this.#parser.feed(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
    });
    stream.on('error', (error) => this.#lose(error));
    stream.on('end', () => this.#lose(null));
    this.#whenClosed = new Promise((resolve) => {
      if (stream.closed) resolve();
      stream.once('close', () => {
        this.#lose(null);
        resolve();
      });
    });
    if (stream.destroyed) this.#lose(null);
  }

  /** Waits for the greeting and negotiates; `capabilities` are those to enable. */
  static async over(stream: Duplex, options: ConnectOptions = {}): Promise<QmpClient> {
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
    options: ExecuteOptions = {},
  ): Promise<unknown> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    if (options.signal?.aborted === true) return Promise.reject(options.signal.reason as Error);
    const id = this.#nextId;
    let text: string;
    try {
      const key = options.oob === true ? 'exec-oob' : 'execute';
      text = writeJson({ [key]: name, arguments: args, id });
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

  /**
   * Events from now on, all or those of the names, each reader for itself: make it before the
   * command whose events are wanted. End it with `return`, `break` or `using`.
   */
  events(options?: EventOptions): EventStream;
  events<N extends EventName>(
    options: EventOptions & { readonly names: readonly N[] },
  ): EventStream<QmpEvent<N>>;
  events(options: EventOptions & { readonly names: readonly string[] }): EventStream<AnyEvent>;
  events(options: EventOptions & { readonly names?: readonly string[] } = {}): EventStream {
    const { signal } = options;
    const abort = (): void => stream.finish(signal?.reason);
    const stream: EventStream = new EventStream(() => {
      signal?.removeEventListener('abort', abort);
      this.#events.delete(stream);
    }, options);
    this.#events.add(stream);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted === true) abort();
    if (this.#closed !== null) stream.finish(this.#isQuitting ? null : this.#closed);
    return stream;
  }

  /** Calls back for each event, before readers of events() see it, until the result is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Calls back once when the connection is lost or closed; at once if that is so. */
  onLost(listener: (error: BlockError) => void): () => void {
    if (this.#closed !== null) listener(this.#closed);
    else this.#losers.add(listener);
    return () => void this.#losers.delete(listener);
  }

  /**
   * Runs a command that starts a job, watched from before it is sent, so that not even a job that
   * is gone before the reply is missed. When the signal ends the wait, the job may have started.
   */
  async start<N extends JobCommandName>(
    name: N,
    args: JobArguments<N>,
    options: WaitOptions = {},
  ): Promise<JobHandle> {
    const job = new JobHandle(this, args['job-id'], { look: false });
    try {
      await this.executeAny(name, args as Readonly<Record<string, unknown>>, options);
    } catch (error) {
      job.close();
      throw error;
    }
    return job;
  }

  /**
   * A handle of job `id`, which runs already or is started by a command that is sent later, such as
   * `transaction`. Close it if that command is refused: no event would ever come.
   */
  job(id: string): JobHandle {
    return new JobHandle(this, id, { look: true });
  }

  /** What the server can do, asked once. */
  schema(options: WaitOptions = {}): Promise<ServerSchema> {
    if (this.#schema === null) {
      const asked = this.execute('query-qmp-schema').then((entries) => new ServerSchema(entries));
      asked.catch(() => {
        this.#schema = null;
      });
      this.#schema = asked;
    }
    return abortable(this.#schema, options.signal);
  }

  /** Whether the server has a command or event, and (if given) that feature of it. */
  async supports(name: string, feature?: string, options: WaitOptions = {}): Promise<boolean> {
    const schema = await this.schema(options);
    if (feature !== undefined) return schema.hasFeature(name, feature);
    return schema.hasCommand(name) || schema.hasEvent(name);
  }

  /** Resolves when the connection has ended, whoever ended it. */
  get closed(): Promise<void> {
    return this.#whenClosed;
  }

  /** Ends the connection and everything that waits on it; jobs of the server go on. */
  async close(): Promise<void> {
    this.#isQuitting = true;
    this.#lose(null);
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
    if (refusal === null && pending.command === 'quit') this.#isQuitting = true;
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
    for (const stream of this.#events) stream.finish(this.#isQuitting ? null : this.#closed);
    for (const listener of this.#losers) listener(this.#closed);
    this.#losers.clear();
    // What was sent is still taken by a server that only stopped talking.
    this.#stream.end();
    this.#stream.destroy();
  }
}

/** Connects, waits for the greeting and negotiates. */
export async function connect(
  address: ClientAddress,
  options: ConnectOptions = {},
): Promise<QmpClient> {
  const socket = await connectSocket(
    'path' in address ? { type: 'unix', ...address } : { type: 'inet', ...address },
    options.signal,
  );
  return QmpClient.over(socket, options);
}
