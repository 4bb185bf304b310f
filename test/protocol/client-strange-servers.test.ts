// SPDX-License-Identifier: Apache-2.0
// What the client does with servers that break off, say nonsense, or are not there at all; and
// with callers who give up or ask twice.

import { once } from 'node:events';
import type { Socket } from 'node:net';
import { Duplex, PassThrough } from 'node:stream';
import { expect, it } from 'vitest';

import { connect, QmpClient } from '../../src/client/index.js';
import type { QmpEvent } from '../../src/client/index.js';
import { listenSocket } from '../../src/host/index.js';

const GREETING =
  '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, ' +
  '"capabilities": []}}\r\n';
const EVENT = '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN"}\r\n';

/** A client whose server is this test: what it was sent, and what it sends. */
async function scripted(): Promise<{ client: QmpClient; sent: PassThrough; say: PassThrough }> {
  const sent = new PassThrough();
  const say = new PassThrough();
  say.write(GREETING);
  sent.once('data', () => say.write('{"return": {}, "id": 1}\r\n'));
  const client = await QmpClient.over(Duplex.from({ readable: say, writable: sent }));
  return { client, sent, say };
}

const NONSENSE = [
  'null',
  '5',
  '[]',
  '"text"',
  '{"event": "X"}',
  '{"event": "X", "timestamp": 7}',
  '{"event": "X", "timestamp": {"seconds": "a", "microseconds": 1}}',
  '{"error": 5, "id": 2}',
  '{"error": {"class": 1}, "id": 2}',
  '{"id": 2}',
];

it.each(NONSENSE)('a server that says %s loses its client: every waiter fails', async (text) => {
  const { client, say } = await scripted();
  const events = client.events();
  const waiting = client.execute('query-jobs');
  say.write(`${text}\r\n`);
  await expect(waiting).rejects.toMatchObject({
    kind: 'closed',
    context: { cause: { kind: 'io' } },
  });
  await expect(events.next()).rejects.toMatchObject({ kind: 'closed' });
  await client.closed;
});

it('a greeting that is none fails the connection', async () => {
  const stream = Duplex.from({ readable: ['{"QMP": 5}\r\n'], writable: new PassThrough() });
  await expect(QmpClient.over(stream)).rejects.toMatchObject({ kind: 'closed' });
});

it('a stream that is gone already fails the connection', async () => {
  const stream = new PassThrough();
  stream.destroy();
  await once(stream, 'close');
  await expect(QmpClient.over(stream)).rejects.toMatchObject({ kind: 'closed' });
});

it('two waits for the next event get one event each, in order', async () => {
  const { client, say } = await scripted();
  const events = client.events();
  const waits = [events.next(), events.next(), events.next()];
  say.write(EVENT + EVENT.replace('"microseconds": 2', '"microseconds": 3'));
  const [first, second] = await Promise.all(waits.slice(0, 2));
  type Next = IteratorResult<QmpEvent, undefined> | undefined;
  const at = (result: Next): unknown => result?.value?.at;
  expect([at(first), at(second)]).toEqual([1_000_002, 1_000_003]);
  await events.return();
  expect(await waits[2]).toEqual({ done: true, value: undefined });
  await client.close();
});

it('arguments that have no JSON form are refused and leave nothing waiting', async () => {
  const { client, say, sent } = await scripted();
  await expect(client.executeAny('x', { speed: Number.NaN })).rejects.toThrow('finite');
  const next = client.execute('query-jobs');
  const [chunk] = (await once(sent, 'data')) as [Buffer];
  const { id } = JSON.parse(chunk.toString()) as { id: number };
  say.write(`{"return": [], "id": ${id}}\r\n`);
  expect(await next).toEqual([]);
  await client.close();
});

it('a command whose signal was aborted before is not sent', async () => {
  const { client, sent } = await scripted();
  const signal = AbortSignal.abort(new Error('given up'));
  await expect(client.execute('query-jobs', {}, { signal })).rejects.toThrow('given up');
  expect(sent.read()).toBeNull();
  await client.close();
});

it('a connection given up before it stands is not kept', async () => {
  let accepted = 0;
  const listener = await listenSocket(
    { type: 'inet', host: '127.0.0.1', port: 0 },
    (socket: Socket) => {
      accepted += 1;
      socket.on('error', () => undefined);
      socket.write(GREETING);
    },
  );
  const { address } = listener;
  if (address.type !== 'inet') throw new Error('a TCP address');
  const signal = AbortSignal.abort(new Error('given up'));
  await expect(connect(address, { signal })).rejects.toThrow('given up');
  const stop = new AbortController();
  const connecting = connect(address, { signal: stop.signal });
  stop.abort(new Error('changed my mind'));
  await expect(connecting).rejects.toThrow('changed my mind');
  expect(accepted).toBeLessThan(2);
  await listener.close();
});

it('readers that ended leave nothing behind on a signal that lives on', async () => {
  const { client } = await scripted();
  const { signal } = new AbortController();
  let listening = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => ((listening += 1), add(...args));
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listening -= 1;
    remove(...args);
  };
  for (let count = 0; count < 3; count += 1) await client.events({ signal }).return();
  expect(listening).toBe(0);
  await client.close();
});

it('a job dismissed by another client before its error was read is not completed', async () => {
  const { client, say, sent } = await scripted();
  const job = client.job('j');
  // The handle's first look, then its look at the error.
  const answers = ['[]', '[]'];
  sent.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().trimEnd().split('\r\n')) {
      const { id } = JSON.parse(line) as { id: number };
      say.write(`{"return": ${answers.shift()}, "id": ${id}}\r\n`);
    }
  });
  const data = '{"id": "j", "status": "concluded"}';
  say.write(EVENT.replace('"SHUTDOWN"', `"JOB_STATUS_CHANGE", "data": ${data}`));
  const outcome = { id: 'j', result: 'discarded', error: null, request: null };
  await expect(job.done).resolves.toEqual(outcome);
  await client.close();
});
