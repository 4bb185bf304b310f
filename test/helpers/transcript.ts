// SPDX-License-Identifier: Apache-2.0
// Raw QMP conversations, played to any server and written down for comparison.
//
// After each step a harmless command with a known id is sent; all that arrives before its answer
// belongs to the step. So nothing sleeps, and broken input can be played too.

import type { Socket } from 'node:net';
import { JsonStream, writeJson } from '../../src/wire/index.js';
import type { JsonMessage } from '../../src/wire/index.js';
import type { JsonObject } from '../../src/base/index.js';

export type Step =
  | string
  | Uint8Array
  | {
      readonly send: string | Uint8Array;
      /** Also wait for an event: its name, `status ID` of JOB_STATUS_CHANGE, or `A or B`. */
      readonly until: string;
    };

export type Line = Readonly<Record<string, unknown>>;

export function command(execute: string, args?: Readonly<Record<string, unknown>>): string {
  return writeJson(args === undefined ? { execute } : { execute, arguments: args });
}

export function untilEvent(until: string, execute: string, args: Line): Step {
  return { send: command(execute, args), until };
}

export class Conversation {
  readonly #socket: Socket;
  readonly #lines: Line[] = [];
  readonly #stream = new JsonStream((message) => this.#receive(message));
  #wake: (() => void) | null = null;
  #ended = false;
  #count = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => this.#stream.feed(chunk));
    socket.on('close', () => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  /** What the server says first. */
  async greeting(): Promise<Line> {
    await this.#until(() => this.#lines.length > 0);
    return this.#lines.shift() as Line;
  }

  /** Plays a step; gives what was said in it, timestamps left out. */
  async play(step: Step, seen = normalise): Promise<readonly Line[]> {
    const plain = typeof step === 'string' || step instanceof Uint8Array;
    const until = plain ? null : step.until;
    this.#count += 1;
    const id = `sync-${this.#count}`;
    const synced = (): number => this.#lines.findIndex((line) => line['id'] === id);
    this.#socket.write(plain ? step : step.send);
    if (until !== null) {
      // A refused command sends no event to wait for.
      const done = (line: Line): boolean => isEvent(line, until) || 'error' in line;
      await this.#until(() => this.#lines.some(done));
    }
    this.#socket.write(`\n${writeJson({ execute: 'no-such-command', id })}\n`);
    await this.#until(() => synced() >= 0);
    const said = this.#lines.splice(0);
    return said.filter((line) => line['id'] !== id).map(seen);
  }

  /** Answers to the commands of `step`, as they were said; events and the like are dropped. */
  async ask(step: string): Promise<readonly Line[]> {
    return (await this.play(step, (line) => line)).filter((line) => 'return' in line);
  }

  async #until(done: () => boolean): Promise<void> {
    while (!done() && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #receive(message: JsonMessage): void {
    this.#lines.push(
      message.ok ? (ordinary(message.value as JsonObject) as Line) : { broken: true },
    );
    this.#wake?.();
  }
}

function ordinary(value: JsonObject): unknown {
  return JSON.parse(writeJson(value));
}

function isEvent(line: Line, until: string): boolean {
  return until.split(' or ').some((each) => isOneEvent(line, each));
}

function isOneEvent(line: Line, until: string): boolean {
  const [first, id] = until.split(' ');
  const data = line['data'] as { readonly id?: string; readonly status?: string } | undefined;
  if (id === undefined) return line['event'] === first;
  return line['event'] === 'JOB_STATUS_CHANGE' && data?.status === first && data?.id === id;
}

function normalise(line: Line): Line {
  const { timestamp: _, ...rest } = line;
  const text = JSON.stringify(rest).replaceAll(/#block\d+/g, '#block');
  return JSON.parse(text) as Line;
}

/** Every step with what was said to it. */
export async function playAll(
  socket: Socket,
  steps: readonly Step[],
): Promise<readonly { readonly step: string; readonly said: readonly Line[] }[]> {
  const conversation = new Conversation(socket);
  await conversation.greeting();
  const record = [];
  for (const step of steps) {
    const sent = typeof step === 'string' || step instanceof Uint8Array ? step : step.send;
    const label = Buffer.from(sent).toString('latin1').slice(0, 200);
    record.push({ step: label, said: await conversation.play(step) });
  }
  return record;
}

