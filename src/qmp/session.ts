// SPDX-License-Identifier: Apache-2.0
// One client: greeting, negotiation, its queue of commands, its replies and events.
//
// In-band commands are answered in the order they came. With the capability `oob` at most
// QMP_LIMITS.queuedCommands of them wait, without it one; then nothing further is looked at, and
// the stream is not read, until one is answered. `exec-oob` is answered when it is looked at, ahead
// of what waits. A client that does not read what it is sent is dropped when
// QMP_LIMITS.unsentBytes are waiting for it. Losing a client changes nothing else.

import type { Duplex, Readable, Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { Buffer } from 'node:buffer';
import { VERSION } from '../api/index.js';
import { BlockError, IO_LIMITS, QMP_LIMITS } from '../base/index.js';
import type { CharStreams } from '../engine/chardev/index.js';
import type { Engine, EngineEvent } from '../engine/index.js';
import { validate } from '../schema/index.js';
import { JsonStream, writeJson } from '../wire/index.js';
import type { JsonMessage } from '../wire/index.js';
import {
  errorReply,
  findCommand,
  readRequest,
  RequestError,
  returnReply,
  runCommand,
} from './dispatch.js';
import type { Reply, Request } from './dispatch.js';

export interface SessionOptions {
  readonly pretty?: boolean;
  /** Bytes that may wait for a client before it is dropped; QMP_LIMITS.unsentBytes by default. */
  readonly unsentBytes?: number;
  /** Called with what must end the program (an assertion failure); thrown unless given. */
  readonly crash?: (error: unknown) => void;
}

interface LookedAt {
  readonly request: Request;
  readonly idText: string | null;
}

/** Both directions of a connection; a socket is both. */
export type SessionStreams = CharStreams;

export function duplexStreams(stream: Duplex): SessionStreams {
  // A client that has said all still gets its answers (`echo … | socat - UNIX:…`).
  stream.allowHalfOpen = true;
  return { input: stream, output: stream };
}

export class QmpSession {
  readonly #engine: Engine;
  readonly #streams: SessionStreams;
  readonly #options: SessionOptions;
  /** Received, not looked at: what is left of a packet. */
  readonly #inbox = new Queue<JsonMessage>();
  /** In-band commands, to be answered one after another. */
  readonly #queue = new Queue<JsonMessage>();
  readonly #parser = new JsonStream((message) => this.#receive(message));
  readonly #unsubscribe: () => void;
  #negotiated = false;
  #oob = false;
  /** The queue being worked off; null while it is empty. */
  #work: Promise<void> | null = null;
  /** Answers out of band, in their order. */
  #outOfBand: Promise<void> = Promise.resolve();
  /** Refusals of broken messages, to be sent together and before anything else is. */
  #refusals = '';
  /** The answer to the last broken message: a flood gets the same one over and over. */
  #refusal = { error: '', text: '' };
  #closed = false;
  #ended: (() => void) | null = null;
  #farewell: Promise<void> | null = null;
  /** Resolves when the session is over, whoever ended it. */
  readonly ended: Promise<void>;

  constructor(engine: Engine, streams: SessionStreams, options: SessionOptions = {}) {
    this.#engine = engine;
    this.#streams = streams;
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#ended = resolve;
    });
    const { input, output } = streams;
    input.on('data', this.#feed);
    input.on('end', this.#inputEnded);
    for (const stream of new Set<Readable | Writable>([input, output])) {
      stream.on('error', this.#lost);
    }
    output.on('close', this.#lost);
    // Standard input closes when all was said, which is still to be answered.
    input.on('close', () => {
      if (!input.readableEnded) this.#lost();
    });
    this.#unsubscribe = engine.events.subscribe((event) => this.#event(event));
    if (input.destroyed || output.destroyed) this.#lost();
    this.#send({ QMP: { version: VERSION, capabilities: ['oob'] } });
  }

  /** Ends the session after the answer that is under way; resolves when it was handed over. */
  close(): Promise<void> {
    this.#farewell ??= this.#close();
    return this.#farewell;
  }

  async #close(): Promise<void> {
    this.#forget();
    this.#streams.input.off('data', this.#feed);
    await this.#work;
    await this.#outOfBand;
    this.#finish();
    const { output } = this.#streams;
    if (output.writableFinished || output.destroyed) return;
    await new Promise<void>((resolve) => {
      const cancel = this.#engine.graph.clock.after(QMP_LIMITS.farewellMs, () => {
        output.destroy();
        resolve();
      });
      output.once('close', () => {
        cancel();
        resolve();
      });
      output.end(() => {
        cancel();
        resolve();
      });
    });
  }

  readonly #feed = (chunk: Buffer): void => {
    this.#parser.feed(chunk);
    this.#admit();
    if (this.#inbox.length > 0) this.#streams.input.pause();
  };

  readonly #inputEnded = (): void => {
    if (this.#work === null) void this.close();
  };

  readonly #lost = (): void => {
    this.#forget();
    this.#finish();
  };

  #forget(): void {
    this.#inbox.clear();
    this.#queue.clear();
  }

  #finish(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unsubscribe();
    this.#streams.input.off('data', this.#feed);
    this.#streams.input.off('end', this.#inputEnded);
    this.#streams.input.resume();
    this.#ended?.();
  }

  #receive(message: JsonMessage): void {
    if (!this.#closed) this.#inbox.push(message);
  }

  /** Takes messages from the inbox as long as there is room for another in-band command. */
  #admit(): void {
    while (this.#inbox.length > 0 && this.#hasRoom()) {
      const message = this.#inbox.shift();
      if (message === undefined) break;
      if (this.#oob && isOutOfBand(message)) {
        this.#outOfBand = this.#outOfBand.then(() => this.#answerOutOfBand(message));
        continue;
      }
      this.#queue.push(message);
      this.#work ??= this.#workOff();
    }
  }

  #hasRoom(): boolean {
    // What is running may be the negotiation, which decides how the next one is read.
    if (!this.#oob) return this.#queue.length === 0;
    return this.#queue.length < QMP_LIMITS.queuedCommands;
  }

  async #workOff(): Promise<void> {
    // Messages of one packet are all there before the first is answered.
    await Promise.resolve();
    let answered = 0;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      if (this.#oob) this.#admit();
      const request = this.#look(next);
      if (request !== null) {
        this.#sendRefusals();
        await this.#answer(request);
        answered += 1;
        if (answered % IO_LIMITS.yieldOperations === 0) await setImmediate();
      } else if (this.#refusals.length >= QMP_LIMITS.refusalBytes) {
        this.#sendRefusals();
        await setImmediate();
      }
      if (this.#engine.closing) this.#forget();
      this.#admit();
      if (this.#inbox.length === 0) this.#streams.input.resume();
    }
    this.#sendRefusals();
    this.#work = null;
    if (this.#streams.input.readableEnded) void this.close();
  }

  /** The request that a message is; null when it is none, and its refusal is to be sent. */
  #look(message: JsonMessage): LookedAt | null {
    if (!message.ok) {
      this.#refuse(message.error);
      return null;
    }
    const { idText } = message;
    const request = readRequest(message.value, this.#oob);
    if (!(request instanceof RequestError)) return { request, idText };
    this.#refusals += this.#textOf(errorReply(request, idText));
    return null;
  }

  async #answer({ request, idText }: LookedAt): Promise<void> {
    let reply: Reply;
    try {
      reply = returnReply(await this.#run(request), idText);
    } catch (error) {
      if (!isRefusal(error)) {
        (this.#options.crash ?? crash)(error);
        return;
      }
      reply = errorReply(error, idText);
    }
    this.#send(reply);
  }

  async #answerOutOfBand(message: JsonMessage): Promise<void> {
    const request = this.#look(message);
    if (request === null) this.#sendRefusals();
    else await this.#answer(request);
  }

  async #run(request: Request): Promise<unknown> {
    const { command, outOfBand } = request;
    if (command === 'qmp_capabilities' && !outOfBand) return this.#negotiate(request);
    if (!this.#negotiated) {
      throw new RequestError(
        "Expecting capabilities negotiation with 'qmp_capabilities'",
        'CommandNotFound',
      );
    }
    return runCommand(this.#engine, request);
  }

  #negotiate(request: Request): void {
    if (this.#negotiated) {
      throw new RequestError(
        'Capabilities negotiation is already complete, command ignored',
        'CommandNotFound',
      );
    }
    const declaration = findCommand(request, this.#engine.compat);
    const args = validate(declaration.args, request.args) as {
      readonly enable?: readonly string[];
    };
    this.#oob = args.enable?.includes('oob') ?? false;
    this.#negotiated = true;
  }

  #event(event: EngineEvent): void {
    if (!this.#negotiated) return;
    const seconds = Math.floor(event.at / 1_000_000);
    const timestamp = { seconds, microseconds: event.at - seconds * 1_000_000 };
    const hasData = Object.keys(event.data).length > 0;
    this.#send({ timestamp, event: event.name, ...(hasData ? { data: event.data } : {}) });
  }

  /** Answers what is no JSON, with the next that is sent. */
  #refuse(error: string): void {
    if (error !== this.#refusal.error) {
      const text = this.#textOf({ error: { class: 'GenericError', desc: error } });
      this.#refusal = { error, text };
    }
    this.#refusals += this.#refusal.text;
  }

  #sendRefusals(): void {
    if (this.#refusals !== '') this.#write('');
  }

  #send(message: Reply): void {
    if (!this.#closed) this.#write(this.#textOf(message));
  }

  #textOf(message: Reply): string {
    if (this.#options.pretty !== true) return `${writeJson(message)}\r\n`;
    return `${writeJson(message, { pretty: true }).replaceAll('\n', '\r\n')}\r\n`;
  }

  #write(text: string): void {
    const { output } = this.#streams;
    const whole = this.#refusals + text;
    this.#refusals = '';
    if (this.#closed) return;
    output.write(whole);
    if (output.writableLength > (this.#options.unsentBytes ?? QMP_LIMITS.unsentBytes)) {
      output.destroy();
      this.#lost();
    }
  }
}

/** First in, first out, in constant time however long a packet of broken messages makes it. */
class Queue<T> {
  #items: T[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    const item = this.#items[this.#head];
    if (item === undefined) return undefined;
    this.#head += 1;
    if (this.#head === this.#items.length) this.clear();
    return item;
  }

  clear(): void {
    this.#items = [];
    this.#head = 0;
  }
}

/** What is neither well formed nor allowed out of band is refused there, too. */
function isOutOfBand(message: JsonMessage): boolean {
  if (!message.ok) return false;
  const { value } = message;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return 'exec-oob' in value && !('execute' in value);
}

/** A refusal is answered; anything else is a programmer's mistake. */
function isRefusal(error: unknown): boolean {
  if (error instanceof RequestError || error instanceof BlockError) return true;
  return typeof (error as { readonly code?: unknown } | null)?.code === 'string';
}

function crash(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
