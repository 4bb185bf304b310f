// SPDX-License-Identifier: Apache-2.0
// What a server owes its clients, hostile ones included: order, isolation, bounds.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex, PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ManualClock, QMP_LIMITS } from '../../src/base/index.js';
import { QmpClient } from '../../src/client/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { QmpServer } from '../../src/qmp/index.js';
import { createEngine } from '../../src/engine/index.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import type { OwnDaemon } from '../helpers/own-daemon.js';
import { command, Conversation } from '../helpers/transcript.js';

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'sessions-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function start(): Promise<OwnDaemon> {
  return startOwnDaemon(directory, new MemoryHost());
}

async function lines(socket: Socket, count: number): Promise<string[]> {
  let text = '';
  socket.setEncoding('latin1');
  while (text.split('\r\n').length <= count) {
    const [chunk] = (await once(socket, 'data')) as [string];
    text += chunk;
  }
  return text.split('\r\n').slice(0, count);
}

const hello = command('qmp_capabilities');

describe('a QMP server', () => {
  it('answers in the order of the commands, ids as they were spelt', async () => {
    await using own = await start();
    const socket = await own.connect();
    const ids = ['1.0', '"x"', '{"a": [1, 2]}', '18446744073709551616', 'null'];
    const commands = ids.map((id) => `{"execute":"query-jobs","id":${id}}`);
    socket.write(hello + commands.join(''));
    const said = await lines(socket, 2 + ids.length);
    expect(said.slice(1)).toEqual([
      '{"return": {}}',
      ...ids.map((id) => `{"return": [], "id": ${id}}`),
    ]);
    socket.destroy();
  });

  // The reference drops what it has not begun when it hears of the end.
  it('does what a client asked for just before it went', async () => {
    await using own = await start();
    const socket = await own.connect();
    const add = command('blockdev-add', { driver: 'null-co', 'node-name': 'left' });
    socket.end(hello + add);
    socket.resume();
    await once(socket, 'close');
    const other = await QmpClient.over(await own.connect());
    const nodes = await other.execute('query-named-block-nodes', { flat: true });
    expect(nodes.map((node) => node['node-name'])).toEqual(['left']);
    await other.close();
  });

  it('answers everything to a client that has already finished sending', async () => {
    await using own = await start();
    const socket = await own.connect();
    const add = { driver: 'null-co', 'node-name': 'n', size: 512 };
    socket.end(hello + command('blockdev-add', add) + command('query-version'));
    let text = '';
    for await (const chunk of socket) text += String(chunk);
    expect(text.split('\r\n')).toHaveLength(5);
    expect(text).not.toContain('error');
  });

  it('takes commands byte by byte', async () => {
    await using own = await start();
    const socket = await own.connect();
    socket.setNoDelay(true);
    const answered = lines(socket, 3);
    for (const byte of Buffer.from(`${hello}{"execute":"query-version","id":"é"}`)) {
      if (!socket.write(Uint8Array.of(byte))) await once(socket, 'drain');
    }
    expect((await answered)[2]).toContain('"id": "\\u00E9"');
    socket.destroy();
  });

  it('negotiates with each client and sends events only to those that have', async () => {
    await using own = await start();
    await using first = await QmpClient.over(await own.connect());
    const silent = new Conversation(await own.connect());
    await silent.greeting();
    const events = first.events();
    const create = first.execute('blockdev-create', {
      'job-id': 'c',
      options: { driver: 'file', filename: '/new.img', size: 65536 },
    });
    const job = first.job('c');
    await create;
    await job.done;
    const { value } = await events.next();
    expect(value).toMatchObject({
      event: 'JOB_STATUS_CHANGE',
      data: { id: 'c', status: 'created' },
    });
    const said = await silent.play(command('query-jobs'));
    expect(said).toEqual([
      { error: { class: 'CommandNotFound', desc: expect.stringContaining('negotiation') } },
    ]);
  });

  it('runs commands of several clients one after another', async () => {
    await using own = await start();
    const clients = await Promise.all(
      Array.from({ length: 4 }, async () => QmpClient.over(await own.connect())),
    );
    const add = { driver: 'null-co', 'node-name': 'same', size: 512 } as const;
    const results = await Promise.allSettled(
      clients.map((client) => client.execute('blockdev-add', add)),
    );
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const client of clients) await client.close();
  });

  it('survives garbage, depth, long tokens and clients that leave in the middle', async () => {
    await using own = await start();
    const hostile: readonly (string | Uint8Array)[] = [
      '{"execute": "blockdev-add", "argum',
      '['.repeat(100_000),
      ']'.repeat(10_000),
      '{"a":'.repeat(5000),
      `"${'x'.repeat(300_000)}`,
      '\u0000\u0001\u007f{"execute"',
      Uint8Array.from({ length: 4096 }, (_, index) => (index * 167) & 0xff),
      '9'.repeat(100_000),
    ];
    for (const bytes of hostile) {
      const socket = await own.connect();
      socket.on('error', () => undefined);
      socket.end(bytes);
      socket.resume();
      await once(socket, 'close');
    }
    await using client = await QmpClient.over(await own.connect());
    expect(await client.execute('query-jobs')).toEqual([]);
    expect(own.server.sessionCount).toBe(1);
  });

  it('stops reading a client that sends more than it is answered', async () => {
    await using engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine);
    const input = new PassThrough();
    const output = new PassThrough();
    output.resume();
    server.serve({ input, output });
    // The engine is busy, so nothing is answered.
    let release = (): void => undefined;
    const busy = engine.exclusive(
      () =>
        new Promise<void>((resolve) => {
          release = resolve;
        }),
    );
    input.write(hello);
    for (let index = 0; index < QMP_LIMITS.queuedCommands + 1; index += 1) {
      input.write('{"execute":"query-jobs"}');
      await new Promise(setImmediate);
    }
    expect(input.isPaused()).toBe(true);
    release();
    await busy;
    await new Promise(setImmediate);
    expect(input.isPaused()).toBe(false);
  });

  it('refuses what is broken at once, in its place among the answers', async () => {
    await using engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine);
    const input = new PassThrough();
    const output = new PassThrough();
    let said = '';
    output.on('data', (chunk: Buffer) => (said += chunk.toString()));
    server.serve({ input, output });
    let release = (): void => undefined;
    const busy = engine.exclusive(() => new Promise<void>((resolve) => (release = resolve)));
    input.write(`]${hello}x {"execute":"query-jobs","id":1}{"id":2} [] ]`);
    const kind = /JSON parse|lacks|must be|return|"QMP"/;
    const kinds = (): (string | undefined)[] =>
      said.trimEnd().split('\r\n').map((line) => kind.exec(line)?.[0]);
    for (let index = 0; index < 5; index += 1) await new Promise(setImmediate);
    // The command has not run yet; what is broken before it is refused.
    expect(kinds()).toEqual(['"QMP"', 'JSON parse', 'return', 'JSON parse']);
    release();
    await busy;
    while (kinds().length < 8) await new Promise(setImmediate);
    expect(kinds().slice(4)).toEqual(['return', 'lacks', 'must be', 'JSON parse']);
    input.write(']'.repeat(10_000));
    while (said.split('\n').length < 10_009) await new Promise(setImmediate);
    expect(new Set(kinds().slice(8))).toEqual(new Set(['JSON parse']));
  });

  it('drops a client that does not read', async () => {
    await using engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine, { unsentBytes: 65_536 });
    const input = new PassThrough();
    const output = new PassThrough();
    const session = server.serve({ input, output });
    const id = 'x'.repeat(16_384);
    for (let index = 0; index < 10; index += 1) {
      input.write(`{"execute":"query-jobs","id":"${id}"}`);
    }
    await session.ended;
    expect(output.destroyed).toBe(true);
    expect(server.sessionCount).toBe(0);
  });

  it('quits with every job cancelled, every event sent, and the reply last', async () => {
    const host = new MemoryHost({ clock: new ManualClock() });
    await using own = await startOwnDaemon(directory, host);
    const socket = await own.connect();
    const conversation = new Conversation(socket);
    await conversation.greeting();
    await conversation.play(hello);
    for (const name of ['s', 't']) {
      const add = { driver: 'null-co', 'node-name': name, size: 8388608 };
      expect(await conversation.play(command('blockdev-add', add))).toEqual([{ return: {} }]);
    }
    const backup = { 'job-id': 'b', device: 's', target: 't', sync: 'full', speed: 65536 };
    await conversation.play(command('blockdev-backup', backup));
    const closed = own.engine.quitRequested.then(() => own.server.close());
    const said = await conversation.play(command('quit'));
    await closed;
    const statuses = said.map((line) => (line['data'] as { status?: string })?.status ?? line);
    expect(statuses.at(-1)).toEqual({ return: {} });
    expect(statuses.slice(-3, -1)).toEqual(['concluded', 'null']);
    expect([...own.engine.graph.nodes]).toEqual([]);
    expect(own.server.sessionCount).toBe(0);
  });

  it('does nothing that waited behind quit', async () => {
    const engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine);
    const clients = await Promise.all(
      [0, 1].map(async () => {
        const [input, output] = [new PassThrough(), new PassThrough()];
        server.serve({ input, output });
        return QmpClient.over(Duplex.from({ readable: output, writable: input }));
      }),
    );
    const [first, second] = clients as [QmpClient, QmpClient];
    const quit = first.execute('quit');
    const add = { driver: 'null-co', 'node-name': 'late', size: 512 } as const;
    const late = second.execute('blockdev-add', add);
    await quit;
    await expect(late).rejects.toThrow('is being shut down');
    await expect(engine.addNode(add)).rejects.toThrow('is being shut down');
    expect([...engine.graph.nodes]).toEqual([]);
    for (const client of clients) await client.close();
  });

  it('keeps no session for a client that was gone before it was served', async () => {
    await using engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine);
    const gone = new PassThrough();
    gone.destroy();
    await once(gone, 'close');
    await server.serve({ input: gone, output: gone }).ended;
    expect(server.sessionCount).toBe(0);
  });

  it('lets go of a client that has said all but takes no answers', async () => {
    const clock = new ManualClock();
    await using engine = await createEngine({ host: new MemoryHost({ clock }) });
    await using server = new QmpServer(engine);
    const [input, output] = [new PassThrough(), new PassThrough()];
    const { ended } = server.serve({ input, output });
    input.end(`${hello}{"execute":"query-jobs","id":"${'x'.repeat(200_000)}"}`);
    await ended;
    await new Promise(setImmediate);
    clock.advance(QMP_LIMITS.farewellMs);
    await new Promise(setImmediate);
    expect(output.destroyed).toBe(true);
  });

  it('pretty-prints for people', async () => {
    await using engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine, { pretty: true });
    const input = new PassThrough();
    const output = new PassThrough();
    server.serve({ input, output });
    const [chunk] = (await once(output, 'data')) as [Buffer];
    expect(chunk.toString().split('\r\n').slice(0, 3)).toEqual([
      '{',
      '    "QMP": {',
      '        "version": {',
    ]);
  });
});
