// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { QmpClient, QmpError } from '../../src/client/index.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';

const daemon = peer('qemu-storage-daemon');
const img = peer('qemu-img');

describe.skipIf(daemon === null || img === null)('the typed client on a real daemon', () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'client-real-'));
    execFileSync(img as string, ['create', '-q', '-f', 'qcow2', join(directory, 'a.qcow2'), '4M']);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('negotiates, runs typed commands and reports refusals with their class', async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    await using client = await QmpClient.over(real.socket, { capabilities: ['oob'] });
    const version = await client.execute('query-version');
    expect(version.qemu).toEqual(client.greeting.version.qemu);
    await client.execute('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 2 ** 40 });
    const nodes = await client.execute('query-named-block-nodes', { flat: true });
    expect(nodes[0]?.image['virtual-size']).toBe(2 ** 40);
    const refused = client.execute('block-job-pause', { device: 'no-such-job' });
    await expect(refused).rejects.toBeInstanceOf(QmpError);
    await expect(refused).rejects.toMatchObject({ errorClass: 'DeviceNotActive' });
    expect(await client.executeAny('query-chardev')).toHaveLength(1);
    await client.execute('quit');
    expect(await real.exited).toBe(0);
  });

  it('sees the end of a job that is dismissed at once', async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    await using client = await QmpClient.over(real.socket);
    const file = { driver: 'file', filename: join(directory, 'a.qcow2') } as const;
    await client.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'a', file });
    await client.execute('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 4194304 });
    const job = client.job('fast');
    await client.execute('blockdev-backup', {
      'job-id': 'fast',
      device: 'a',
      target: 't',
      sync: 'full',
    });
    expect(await job.done).toMatchObject({ id: 'fast', result: 'completed', error: null });
    expect(job.history.slice(0, 2)).toEqual(['created', 'running']);
    expect(await job.info()).toBeNull();
  });

  it('reports the error of a create job from query-jobs', async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    await using client = await QmpClient.over(real.socket);
    const job = client.job('make');
    const options = { driver: 'qcow2', file: 'nowhere', size: 1048576 };
    await client.execute('blockdev-create', { 'job-id': 'make', options });
    const outcome = await job.done;
    expect(outcome.result).toBe('failed');
    expect(outcome.error).toContain("node-name='nowhere'");
    await job.dismiss();
    expect(job.status).toBe('null');
  });

  it('fails what waits when the connection is lost', async () => {
    const real = await startRealDaemon(daemon as string, directory);
    const client = await QmpClient.over(real.socket);
    const job = client.job('never');
    await real[Symbol.asyncDispose]();
    await expect(job.done).rejects.toThrow();
    await expect(client.execute('query-version')).rejects.toThrow('closed');
  });

  it('gives up waiting when its signal says so, and only then', async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    await using client = await QmpClient.over(real.socket);
    const controller = new AbortController();
    const job = client.job('none');
    const waiting = job.completed({ signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    expect((await client.execute('query-jobs')).length).toBe(0);
  });
});
