// SPDX-License-Identifier: Apache-2.0
// The outcome of a job under every interleaving of its events with the replies: a server of this
// test tells a random life of a job, in random pieces, and dies where chance says so.

import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import type { JobOutcome, JobState } from '../../src/client/index.js';

const GREETING =
  '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, ' +
  '"capabilities": []}}\r\n';

interface Life {
  readonly kind: 'stream' | 'create';
  readonly end: JobOutcome['result'];
  readonly pauses: number;
  readonly autoDismiss: boolean;
  /** The connection is cut after this many messages. */
  readonly cutAfter: number;
  /** Sizes of the pieces in which bytes arrive. */
  readonly pieces: readonly number[];
  /** How many events come before each reply. */
  readonly before: readonly number[];
  readonly handle: 'start' | 'job';
}

const life: fc.Arbitrary<Life> = fc.record({
  kind: fc.constantFrom('stream', 'create'),
  end: fc.constantFrom('completed', 'failed', 'cancelled', 'discarded'),
  pauses: fc.nat(3),
  autoDismiss: fc.boolean(),
  cutAfter: fc.oneof(fc.constant(1000), fc.nat(25)),
  pieces: fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 8 }),
  before: fc.array(fc.nat(12), { minLength: 1, maxLength: 6 }),
  handle: fc.constantFrom('start', 'job'),
});

const STAMP = { seconds: 1, microseconds: 2 };

function status(state: JobState): object {
  return { event: 'JOB_STATUS_CHANGE', timestamp: STAMP, data: { id: 'j', status: state } };
}

/** The events of a life; those of an end that is told by query-jobs only have no BLOCK_JOB. */
function eventsOf({ kind, end, pauses, autoDismiss }: Life): readonly object[] {
  if (end === 'discarded') return [status('created'), status('null')];
  const progress = { type: 'stream', device: 'j', len: 1, offset: 1, speed: 0 };
  const error = end === 'failed' ? { error: 'Input/output error' } : {};
  const name = end === 'cancelled' ? 'BLOCK_JOB_CANCELLED' : 'BLOCK_JOB_COMPLETED';
  const told = { event: name, timestamp: STAMP, data: { ...progress, ...error } };
  return [
    ...(['created', 'running'] as const).map(status),
    ...Array.from({ length: pauses }, () => [status('paused'), status('running')]).flat(),
    ...(end === 'completed' ? (['waiting', 'pending'] as const) : (['aborting'] as const)).map(
      status,
    ),
    ...(kind === 'stream' ? [told] : []),
    status('concluded'),
    ...(kind === 'stream' && autoDismiss ? [status('null')] : []),
  ];
}

/** What query-jobs shows after so many events. */
function jobsAfter(told: readonly object[], { end }: Life): readonly object[] {
  const states = told.flatMap((event) => {
    const { data } = event as { data: { status?: JobState } };
    return data.status === undefined ? [] : [data.status];
  });
  const current = states.at(-1);
  if (current === undefined || current === 'null') return [];
  const texts = { failed: 'Input/output error', cancelled: 'Operation canceled' };
  const text = current === 'concluded' ? texts[end as keyof typeof texts] : undefined;
  const info = { id: 'j', type: 'create', status: current };
  return [{ ...info, 'current-progress': 0, 'total-progress': 1, ...(text && { error: text }) }];
}

/** Tells the life: replies to commands in their order, events before and after them. */
class Teller extends Duplex {
  readonly #life: Life;
  readonly #events: readonly object[];
  #told = 0;
  #messages = 0;
  #replies = 0;
  #input = '';
  #started = false;

  constructor(story: Life) {
    super();
    this.#life = story;
    this.#events = eventsOf(story);
    this.push(GREETING);
  }

  override _read(): void {
    // Everything is pushed when it is said.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#input += chunk.toString();
    const lines = this.#input.split('\r\n');
    this.#input = lines.pop() ?? '';
    for (const line of lines) {
      this.#answer(JSON.parse(line) as { execute: string; id: number });
    }
    done();
  }

  /** Everything that is left. */
  tellAll(): void {
    this.#started = true;
    this.#tell(this.#events.length);
  }

  #answer({ execute, id }: { readonly execute: string; readonly id: number }): void {
    if (execute === 'blockdev-create') this.#started = true;
    const { before } = this.#life;
    const count = before[this.#replies % before.length] as number;
    this.#replies += 1;
    if (this.#started) this.#tell(count);
    const jobs = jobsAfter(this.#events.slice(0, this.#told), this.#life);
    this.#say({ return: execute === 'query-jobs' ? jobs : {}, id });
  }

  #tell(count: number): void {
    const next = this.#events.slice(this.#told, this.#told + count);
    this.#told += next.length;
    for (const event of next) this.#say(event);
  }

  #say(message: object): void {
    this.#messages += 1;
    if (this.#messages > this.#life.cutAfter + 1) {
      this.destroy();
      return;
    }
    const bytes = Buffer.from(`${JSON.stringify(message)}\r\n`);
    const { pieces } = this.#life;
    for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
      const length = pieces[turn % pieces.length] as number;
      if (!this.destroyed) this.push(bytes.subarray(at, at + length));
      at += length;
    }
  }
}

interface Seen {
  readonly settled: number;
  readonly outcome: JobOutcome | Error;
  readonly states: readonly JobState[];
  readonly isCut: boolean;
}

async function follow(story: Life): Promise<Seen> {
  const teller = new Teller(story);
  const client = await QmpClient.over(teller);
  let settled = 0;
  const args = { 'job-id': 'j', options: { driver: 'file', filename: 'x', size: 0 } };
  const states: JobState[] = [];
  let outcome: JobOutcome | Error;
  try {
    const early = story.handle === 'job' ? client.job('j') : null;
    const started = client.start('blockdev-create', args);
    const job = early ?? (await started);
    await started;
    const count = (): void => void (settled += 1);
    void job.done.then(count, count);
    const reading = (async () => {
      for await (const state of job) states.push(state);
    })();
    reading.catch(() => undefined);
    const waits = [job.ready(), job.completed(), job.reach(['concluded']), reading];
    teller.tellAll();
    outcome = await job.done.catch((error: unknown) => error as Error);
    await Promise.allSettled(waits);
  } catch (error) {
    outcome = error as Error;
    settled = 1;
  }
  const isCut = teller.destroyed;
  await client.close();
  return { settled, outcome, states, isCut };
}

it('settles once, with the outcome that the job had or with the loss', async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', note);
  const property = fc.asyncProperty(life, async (story) => {
    const seen = await follow(story);
    expect(seen.settled).toBe(1);
    if (seen.outcome instanceof Error) {
      expect(seen.isCut).toBe(true);
      expect(seen.outcome).toMatchObject({ kind: 'closed' });
      return;
    }
    expect(seen.outcome.result).toBe(story.end);
    const isTold = seen.outcome.result === 'failed';
    expect(seen.outcome.error).toBe(isTold ? 'Input/output error' : null);
    if (!seen.isCut) expect(seen.states).toEqual(statesOf(story));
  });
  await fc.assert(property, { numRuns: 300 });
  process.off('unhandledRejection', note);
  expect(unhandled).toEqual([]);
});

/** Up to the end: a reader of states hears nothing of the dismissal. */
function statesOf(story: Life): readonly JobState[] {
  const states = eventsOf(story).flatMap((event) => {
    const { data } = event as { data: { status?: JobState } };
    return data.status === undefined ? [] : [data.status];
  });
  const end = states.indexOf('concluded');
  return end < 0 ? states : states.slice(0, end + 1);
}
