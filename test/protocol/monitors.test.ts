// SPDX-License-Identifier: Apache-2.0
// Several monitors of one program, on every kind of character device: each has its own
// negotiation, all see every event, and one that hangs stops nobody.

import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync } from 'node:fs';
import { rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import { connectSocket } from '../../src/host/index.js';
import { BAD_INPUT_LIMITS } from '../helpers/measured-run.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import type { ProgramDaemon } from '../helpers/program-daemon.js';
import { command } from '../helpers/transcript.js';

const hello = command('qmp_capabilities');
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'monitors-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const path = (name: string): string => join(directory, name);

function monitor(id: string, chardev: string): string[] {
  return ['--chardev', `${chardev},id=${id}`, '--monitor', id];
}

/** A job that tells its story in events, and its end. */
async function runJob({ client }: ProgramDaemon): Promise<void> {
  const options = { driver: 'file', filename: path('made.img'), size: 65_536 } as const;
  const created = client.execute('blockdev-create', { 'job-id': 'c', options });
  const job = client.job('c');
  await created;
  await job.done;
}

async function ringOf({ client }: ProgramDaemon, device: string): Promise<string> {
  return client.execute('ringbuf-read', { device, size: 65_536 });
}

describe('monitors of one daemon', () => {
  it('on a pipe, a file, nothing and a ring greet and answer, each for itself', async () => {
    for (const name of ['pipe.in', 'pipe.out']) execFileSync('mkfifo', [path(name)]);
    const said = openSync(path('pipe.out'), constants.O_RDWR | constants.O_NONBLOCK);
    const ask = openSync(path('pipe.in'), constants.O_RDWR);
    await using daemon = await startProgramDaemon(directory, [
      ...monitor('p', `pipe,path=${path('pipe')}`),
      ...monitor('f', `file,path=${path('said')}`),
      ...monitor('n', 'null'),
      ...monitor('r', 'ringbuf,size=64k'),
    ]);
    writeSync(ask, `${hello}${command('query-version')}`);
    await runJob(daemon);
    expect(await daemon.client.execute('query-chardev')).toEqual(
      expect.arrayContaining(
        ['pipe', 'file', 'null', 'ringbuf'].map((filename) =>
          expect.objectContaining({ filename, 'frontend-open': true }),
        ),
      ),
    );
    for (const id of ['p', 'f', 'n', 'r']) {
      await expect(daemon.client.execute('chardev-remove', { id })).rejects.toThrow('is busy');
    }
    // A ring takes what the monitor says, and nobody can speak to that monitor.
    const ring = await ringOf(daemon, 'r');
    expect(ring).toMatch(/^\{"QMP": .*\r\n$/);
    await daemon.end('SIGTERM');
    expect(readFileSync(path('said'), 'utf8')).toBe(ring);
    const buffer = Buffer.alloc(65_536);
    const lines = buffer.toString('utf8', 0, readSync(said, buffer)).split('\r\n');
    expect(lines[0]).toContain('"QMP"');
    expect(lines.filter((line) => line.includes('JOB_STATUS_CHANGE')).length).toBeGreaterThan(3);
    for (const descriptor of [said, ask]) closeSync(descriptor);
  });

  it('tell each client every event, in the same order', async () => {
    await using daemon = await startProgramDaemon(directory, [
      ...monitor('a', `socket,path=${path('a.sock')},server=on,wait=off`),
      ...monitor('b', `socket,host=127.0.0.1,port=0,server=on,wait=off`),
    ]);
    const port = (await daemon.client.execute('qom-get', { path: 'b', property: 'addr' })) as {
      readonly port: string;
    };
    const places = [
      { type: 'unix', path: path('a.sock') },
      { type: 'unix', path: path('a.sock') },
      { type: 'inet', host: '127.0.0.1', port: Number(port.port) },
    ] as const;
    const clients = await Promise.all(
      places.map(async (place) => QmpClient.over(await connectSocket(place))),
    );
    const streams = clients.map((client) => client.events());
    await runJob(daemon);
    const stories = await Promise.all(
      streams.map(async (stream) => {
        const story: unknown[] = [];
        for await (const event of stream) {
          story.push(event);
          if ((event.data as { status?: string })?.status === 'concluded') break;
        }
        return story;
      }),
    );
    expect(stories[0]?.length).toBeGreaterThan(3);
    expect(stories[1]).toEqual(stories[0]);
    expect(stories[2]).toEqual(stories[0]);
    for (const client of clients) await client.close();
  });

  it('go on beside one whose client never reads', async () => {
    await using daemon = await startProgramDaemon(
      directory,
      monitor('a', `socket,path=${path('a.sock')},server=on,wait=off`),
    );
    const deaf = await connectSocket({ type: 'unix', path: path('a.sock') });
    deaf.on('error', () => undefined).pause();
    deaf.write(hello + command('query-qmp-schema').repeat(500));
    for (let turn = 0; turn < 3; turn += 1) {
      await runJob(daemon);
      await daemon.client.execute('job-dismiss', { id: 'c' });
    }
    expect(daemon.residentMiB()).toBeLessThan(BAD_INPUT_LIMITS.residentMiB);
    deaf.destroy();
  });

  it('connect again where they are told to', async () => {
    const server = createServer();
    const first = await startProgramDaemon(
      directory,
      monitor('c', `socket,path=${path('later.sock')},reconnect=1`),
    );
    await using daemon = first;
    const list = await daemon.client.execute('query-chardev');
    expect(list.find(({ label }) => label === 'c')?.filename).toMatch(/^disconnected:unix:/);
    server.listen(path('later.sock'));
    for (let time = 0; time < 2; time += 1) {
      const [socket] = (await once(server, 'connection')) as [Socket];
      const client = await QmpClient.over(socket);
      expect(await client.execute('query-jobs')).toEqual([]);
      await client.close();
    }
    server.close();
  });

  it('answer what a file says', () => {
    writeFileSync(path('in'), `${hello}${command('query-jobs')}${command('quit')}`);
    const main = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
    const chardev = ['--chardev', 'stdio,id=s,signal=off', '--monitor', 'chardev=s,pretty=off'];
    const said = execFileSync(process.execPath, [main, 'storage-daemon', ...chardev], {
      input: readFileSync(path('in')),
      encoding: 'utf8',
      timeout: BAD_INPUT_LIMITS.hangMs,
    });
    expect(said.trimEnd().split('\r\n').slice(1)).toEqual([
      '{"return": {}}',
      '{"return": []}',
      '{"return": {}}',
    ]);
  });
});
