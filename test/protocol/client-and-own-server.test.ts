// SPDX-License-Identifier: Apache-2.0
// The typed client on our server: real images, real jobs, over every kind of stream.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, expect, expectTypeOf, it } from 'vitest';

import { connect, QmpClient } from '../../src/client/index.js';
import type { CommandResult, EventData } from '../../src/client/index.js';
import { createEngine } from '../../src/engine/index.js';
import { MemoryHost, openDefaultHost } from '../../src/host/index.js';
import { openImage, serve } from '../../src/index.js';
import { QmpServer } from '../../src/qmp/index.js';
import { peer } from '../helpers/peers.js';

const img = peer('qemu-img');
const io = peer('qemu-io');

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'client-own-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const path = (name: string): string => join(directory, name);

function makeChain(): void {
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', path('base.qcow2'), '8M']);
  execFileSync(io as string, ['-c', 'write -P 7 1M 3M', path('base.qcow2')]);
  const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', ...backing, path('top.qcow2')]);
  execFileSync(io as string, ['-c', 'write -P 9 2M 64k', path('top.qcow2')]);
}

/** What a guest sees before the job, in before.raw. */
function keepView(): void {
  execFileSync(img as string, ['convert', '-O', 'raw', path('top.qcow2'), path('before.raw')]);
}

async function addTop(client: QmpClient): Promise<void> {
  const file = { driver: 'file', filename: path('top.qcow2') } as const;
  await client.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'top', file });
}

describe('types of the client', () => {
  it('come from the declarations', () => {
    expectTypeOf<CommandResult<'query-jobs'>[number]['current-progress']>().toEqualTypeOf<number>();
    expectTypeOf<EventData<'BLOCK_JOB_PENDING'>['id']>().toEqualTypeOf<string>();
    expectTypeOf<CommandResult<'job-pause'>>().toEqualTypeOf<Record<string, never>>();
  });
});

describe.skipIf(img === null || io === null)('the typed client on our server', () => {
  it('streams a chain made by qemu-img, and the result is clean and identical', async () => {
    makeChain();
    keepView();
    await using served = await serve({ type: 'unix', path: path('qmp.sock') });
    await using client = await connect({ path: path('qmp.sock') });
    await addTop(client);
    const job = client.job('s');
    await client.execute('block-stream', { device: 'top', 'job-id': 's' });
    expect(await job.done).toMatchObject({ id: 's', result: 'completed', error: null });
    await client.execute('blockdev-del', { 'node-name': 'top' });
    await client.execute('quit');
    await served.quitRequested;
    const output = execFileSync(img as string, ['info', '--output=json', path('top.qcow2')]);
    expect(JSON.parse(output.toString())).not.toHaveProperty('backing-filename');
    execFileSync(img as string, ['check', '-q', path('top.qcow2')]);
    execFileSync(img as string, ['compare', '-q', path('top.qcow2'), path('before.raw')]);
  });

  it('creates a target over TCP, backs up to it, and it compares equal', async () => {
    makeChain();
    await using served = await serve({ type: 'inet', host: '127.0.0.1', port: 0 });
    const { address } = served;
    if (address.type !== 'inet') throw new Error('a TCP address');
    await using client = await connect(address);
    const create = client.job('c');
    const options = { driver: 'file', filename: path('copy.qcow2'), size: 0 };
    await client.execute('blockdev-create', { 'job-id': 'c', options });
    await create.completed();
    await create.dismiss();
    const node = (name: string): object => ({
      'node-name': name,
      file: { driver: 'file', filename: path(`${name}.qcow2`) },
    });
    await client.execute('blockdev-add', {
      driver: 'file',
      'node-name': 'store',
      filename: path('copy.qcow2'),
    });
    const format = client.job('f');
    await client.execute('blockdev-create', {
      'job-id': 'f',
      options: { driver: 'qcow2', file: 'store', size: 8 * 1024 * 1024 },
    });
    await format.completed();
    await client.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'copy', file: 'store' });
    await client.execute('blockdev-add', { driver: 'qcow2', ...node('top') });
    const backup = client.job('b');
    await client.execute('blockdev-backup', {
      'job-id': 'b',
      device: 'top',
      target: 'copy',
      sync: 'full',
      'auto-finalize': false,
    });
    await backup.reach(['pending']);
    await backup.finalize();
    expect((await backup.done).result).toBe('completed');
    await client.execute('quit');
    await served.quitRequested;
    execFileSync(img as string, ['check', '-q', path('copy.qcow2')]);
    execFileSync(img as string, ['compare', '-q', path('copy.qcow2'), path('top.qcow2')]);
  });

  it('a paused job holds its place, a cancelled one leaves the image as it was', async () => {
    makeChain();
    keepView();
    await using served = await serve({ type: 'unix', path: path('qmp.sock') });
    await using client = await connect({ path: path('qmp.sock') });
    await addTop(client);
    const job = client.job('s');
    await client.execute('block-stream', { device: 'top', 'job-id': 's', speed: 65536 });
    await job.pause();
    await job.reach(['paused']);
    const held = (await job.info())?.['current-progress'];
    await job.setSpeed(0);
    expect((await job.info())?.['current-progress']).toBe(held);
    await job.resume();
    const outcome = await job.done;
    expect(outcome.result).toBe('completed');
    await client.execute('quit');
    await served.quitRequested;
    execFileSync(img as string, ['check', '-q', path('top.qcow2')]);
    execFileSync(img as string, ['compare', '-q', path('top.qcow2'), path('before.raw')]);
  });

  it('openImage finds the format, and refuses by name what is not there', async () => {
    makeChain();
    await using image = await openImage(path('top.qcow2'));
    expect(image.node.driver.name).toBe('qcow2');
    expect(image.node.length).toBe(8 * 1024 * 1024);
    await expect(openImage(path('none.qcow2'))).rejects.toThrow('No such file or directory');
  });
});

describe('the client', () => {
  it('speaks over any duplex stream, and events are an async iterable', async () => {
    await using engine = await createEngine({ host: new MemoryHost() });
    await using server = new QmpServer(engine);
    const [near, far] = [new PassThrough(), new PassThrough()];
    server.serve({ input: near, output: far });
    await using client = await QmpClient.over(Duplex.from({ readable: far, writable: near }));
    const events = client.events();
    const options = { driver: 'file', filename: '/x.img', size: 512 };
    const job = client.job('c');
    await client.execute('blockdev-create', { 'job-id': 'c', options });
    await job.completed();
    const seen: string[] = [];
    for await (const event of events) {
      if (event.event === 'JOB_STATUS_CHANGE') seen.push(event.data.status);
      if (seen.at(-1) === 'concluded') break;
    }
    expect(seen).toEqual(['created', 'running', 'waiting', 'pending', 'concluded']);
    expect(job.history).toEqual(seen);
  });

  it('of a host without free space reports the failed job', async () => {
    const host = new MemoryHost();
    host.faults.add({ operation: 'truncate', nth: 1, errno: 'ENOSPC' });
    await using engine = await createEngine({ host });
    await using server = new QmpServer(engine);
    await server.listen({ type: 'unix', path: path('qmp.sock') });
    await using client = await connect({ path: path('qmp.sock') });
    const job = client.job('c');
    const options = { driver: 'file', filename: '/x.img', size: 512 };
    await client.execute('blockdev-create', { 'job-id': 'c', options });
    const outcome = await job.done;
    expect(outcome.result).toBe('failed');
    expect(outcome.error).toContain('No space left on device');
  });

  it('is refused a second engine user of the same image, across engines', async () => {
    const host = openDefaultHost();
    await using first = await createEngine({ host });
    await using second = await createEngine({ host });
    const created = await host.createFile(path('a.img'));
    await created.truncate(65536);
    await created.close();
    const options = { driver: 'file', 'node-name': 'a', filename: path('a.img') };
    const raw = { driver: 'raw', 'node-name': 'r', file: options };
    await first.addNode(raw);
    const node = first.graph.require('r');
    const writer = await first.graph.attach(node, 'guest', { taken: 2, shared: 0 });
    await second.addNode(raw);
    const rival = second.graph.attach(second.graph.require('r'), 'guest', { taken: 2, shared: 0 });
    await expect(rival).rejects.toThrow('lock');
    await writer.detach();
  });
});
