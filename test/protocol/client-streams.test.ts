// SPDX-License-Identifier: Apache-2.0
// The client's connection: commands that overlap, events that nobody reads, servers that go away,
// and schemas that lead nowhere.

import { Duplex, PassThrough } from 'node:stream';
import { expect, it } from 'vitest';

import { QmpClient, ServerSchema } from '../../src/client/index.js';

const GREETING =
  '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, ' +
  '"capabilities": ["oob"]}}\r\n';

interface Sent {
  readonly execute?: string;
  readonly 'exec-oob'?: string;
  readonly id: number;
}

/** A client whose server is this test. */
async function scripted(): Promise<{
  client: QmpClient;
  /** What was sent after the negotiation. */
  sent: Sent[];
  readonly say: (message: object) => void;
  readonly end: () => void;
}> {
  const [input, output] = [new PassThrough(), new PassThrough()];
  const sent: Sent[] = [];
  const say = (message: object): void => void output.write(`${JSON.stringify(message)}\r\n`);
  output.write(GREETING);
  input.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().trimEnd().split('\r\n')) {
      const command = JSON.parse(line) as Sent;
      if (command.execute === 'qmp_capabilities') say({ return: {}, id: command.id });
      else sent.push(command);
    }
  });
  const client = await QmpClient.over(Duplex.from({ readable: output, writable: input }));
  return { client, sent, say, end: () => void output.end() };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const STAMP = { timestamp: { seconds: 1, microseconds: 2 } };
const progress = { type: 'mirror', device: 'm', len: 1, offset: 1, speed: 0 };
const READY = { event: 'BLOCK_JOB_READY', data: progress, ...STAMP };
const OTHER = { event: 'SHUTDOWN', data: { guest: false, reason: 'x' }, ...STAMP };

it('commands are sent without waiting, and replies in any order find their own', async () => {
  const { client, sent, say } = await scripted();
  const answers = [1, 2, 3].map((number) => client.executeAny('x', { number }));
  const early = client.executeAny('y', {}, { oob: true });
  await turn();
  expect(sent.map((command) => command.execute ?? command['exec-oob'])).toEqual([
    'x', 'x', 'x', 'y',
  ]);
  for (const { id } of sent.toReversed()) say({ return: { id }, id });
  const ids = sent.map(({ id }) => ({ id }));
  expect(await Promise.all([...answers, early])).toEqual(ids);
  await client.close();
});

it('readers get the events of their names, also those before a reply', async () => {
  const { client, sent, say } = await scripted();
  using ready = client.events({ names: ['BLOCK_JOB_READY'] });
  using others = client.events({ names: ['SHUTDOWN'] });
  const reply = client.execute('query-jobs');
  await turn();
  for (const message of [OTHER, READY, { return: [], id: sent[0]?.id }]) say(message);
  await reply;
  const { value } = await ready.next();
  expect(value?.data.device).toBe('m');
  expect((await others.next()).value?.event).toBe('SHUTDOWN');
  await client.close();
  expect(await ready.next()).toEqual({ done: true, value: undefined });
});

it('a reader that falls behind gets what was kept, then one clear error', async () => {
  const { client, say } = await scripted();
  const events = client.events({ buffer: 2 });
  const other = client.events();
  for (let count = 0; count < 4; count += 1) say(OTHER);
  for (let count = 0; count < 4; count += 1) await other.next();
  expect((await events.next()).value?.event).toBe('SHUTDOWN');
  expect((await events.next()).value?.event).toBe('SHUTDOWN');
  await expect(events.next()).rejects.toThrow('More than 2 events were left unread');
  expect((await events.next()).done).toBe(true);
  await client.close();
});

it('a server that dies in the middle gives one and the same error to all who wait', async () => {
  const { client, end } = await scripted();
  const job = client.job('j');
  const events = client.events();
  const waits: Promise<unknown>[] = [
    client.execute('query-jobs'),
    client.start('block-stream', { 'job-id': 's', device: 'd' }),
    client.supports('block-stream'),
    job.done,
    job.ready(),
    job.completed(),
    events.next(),
  ];
  const errors = Promise.all(waits.map((wait) => wait.catch((error: unknown) => error)));
  end();
  for (const error of await errors) {
    expect(error).toMatchObject({ kind: 'closed' });
    expect((error as Error).message).toContain('The QMP connection was closed');
  }
  await client.closed;
  await expect(client.execute('query-jobs')).rejects.toMatchObject({ kind: 'closed' });
  await expect(client.job('k').done).rejects.toMatchObject({ kind: 'closed' });
});

it('nobody has to look at a job: a loss leaves no unhandled rejection', async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', note);
  const { client, end } = await scripted();
  client.job('a');
  client.events();
  end();
  await client.closed;
  for (let count = 0; count < 5; count += 1) await turn();
  process.off('unhandledRejection', note);
  expect(unhandled).toEqual([]);
});

it('after quit the end of the connection is the end of the events', async () => {
  const { client, sent, say, end } = await scripted();
  const events = client.events();
  const quit = client.execute('quit');
  await turn();
  say({ return: {}, id: sent[0]?.id });
  await quit;
  end();
  expect(await events.next()).toEqual({ done: true, value: undefined });
});

it.each([{ return: {} }, { return: {}, id: 'x' }, { error: { class: 'a', desc: 'b' }, id: 1.5 }])(
  'a reply of nobody (%j) ends the connection or is left alone',
  async (reply) => {
    const { client, say, sent } = await scripted();
    const waiting = client.execute('query-jobs');
    waiting.catch(() => undefined);
    await turn();
    say(reply);
    say({ return: [], id: sent[0]?.id });
    const result = await waiting.catch((error: unknown) => (error as { kind?: string }).kind);
    expect([[], 'closed']).toContainEqual(result);
    await client.close();
  },
);

it('states of a job are kept in bounds; a reader that starts late says so', async () => {
  const { client, say } = await scripted();
  const job = client.job('j');
  const state = (status: string): object => ({
    event: 'JOB_STATUS_CHANGE', data: { id: 'j', status }, ...STAMP,
  });
  for (let count = 0; count < 1000; count += 1) {
    for (const status of ['paused', 'running']) say(state(status));
  }
  say(state('null'));
  expect((await job.done).result).toBe('discarded');
  expect(job.history.length).toBe(1024);
  await expect(job[Symbol.asyncIterator]().next()).rejects.toThrow('left unread');
  await client.close();
});

it('a schema that goes round in circles, or is nonsense, has an answer', () => {
  const schema = new ServerSchema([
    { name: 'c', 'meta-type': 'command', 'arg-type': '[0]', features: 'none' },
    { name: '[0]', 'meta-type': 'array', 'element-type': '[0]' },
    { name: 'd', 'meta-type': 'command', 'arg-type': '1' },
    {
      name: '1', 'meta-type': 'object',
      members: [null, 7, { name: 'a', type: '1', features: ['f'] }], variants: 5,
    },
    { name: 'e', 'meta-type': 'alternate', members: [{ type: 'e' }, { type: 'e' }] },
    { name: 'x', 'meta-type': 'command', 'arg-type': 'e' },
  ]);
  expect(schema.hasArgument('c', 'a')).toBe(false);
  expect(schema.hasArgument('x', 'a')).toBe(false);
  expect(schema.hasFeature('c', 'none')).toBe(false);
  expect(schema.hasArgument('d', 'a.a.a')).toBe(true);
  expect(schema.hasFeature('d', 'f', 'a.a')).toBe(true);
  expect(schema.hasArgument('d', 'a=b')).toBe(false);
  expect(schema.hasArgument('d', '')).toBe(false);
});

it('a job is not taken for an earlier one of its name, whose end is still on its way', async () => {
  const { client, sent, say, end } = await scripted();
  const status = (name: string): object => ({
    event: 'JOB_STATUS_CHANGE',
    data: { id: 'j', status: name },
    ...STAMP,
  });
  const done = { event: 'BLOCK_JOB_COMPLETED', data: { ...progress, device: 'j' }, ...STAMP };
  const starting = client.start('block-stream', { 'job-id': 'j', device: 'd' });
  await turn();
  for (const message of [status('pending'), done, status('concluded'), status('null')]) {
    say(message);
  }
  say(status('created'));
  say(status('running'));
  say({ return: {}, id: sent[0]?.id });
  const job = await starting;
  expect(job.history).toEqual(['created', 'running']);
  const failed = { ...done, data: { ...done.data, error: 'No space left' } };
  for (const message of [failed, status('concluded'), status('null')]) say(message);
  expect(await job.done).toMatchObject({ result: 'failed', error: 'No space left' });
  end();
});
