// SPDX-License-Identifier: Apache-2.0
// Job handles of the typed client on our server, a real daemon and a real QEMU: the same tests.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, expectTypeOf, it } from 'vitest';

import { JobError, QmpClient, QmpError } from '../../src/client/index.js';
import type { JobCommandName, JobState, QmpEvent } from '../../src/client/index.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon, startRealQemu } from '../helpers/real-daemon.js';

const MIB = 1024 * 1024;
const daemon = peer('qemu-storage-daemon');
const qemu = peer('qemu-system-x86_64');

interface Peer extends AsyncDisposable {
  readonly client: QmpClient;
}

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'client-jobs-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function own(): Promise<Peer> {
  const server = await startOwnDaemon(directory);
  const client = await QmpClient.over(await server.connect());
  return {
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function real(start: typeof startRealQemu, program: string): Promise<Peer> {
  const server = await start(program, directory);
  const client = await QmpClient.over(server.socket);
  return {
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** `source` and `target`; the first read of `bad` fails. */
async function addNodes(client: QmpClient): Promise<void> {
  for (const name of ['source', 'target', 'store']) {
    const node = { driver: 'null-co', 'node-name': name, size: 4 * MIB } as const;
    await client.execute('blockdev-add', node);
  }
  await client.execute('blockdev-add', {
    driver: 'blkdebug',
    'node-name': 'bad',
    image: 'store',
    'inject-error': [{ event: 'none', iotype: 'read', errno: 5, once: true }],
  });
}

const COPY = { device: 'source', target: 'target', sync: 'full' } as const;

it('commands that start a job are known by their types', () => {
  expectTypeOf<'block-stream'>().toExtend<JobCommandName>();
  expectTypeOf<'query-jobs'>().not.toExtend<JobCommandName>();
  expectTypeOf<QmpEvent<'BLOCK_JOB_READY'>['data']['len']>().toEqualTypeOf<number>();
});

describe.each([
  ['our server', own, false],
  ['a real daemon', () => real(startRealDaemon, daemon as string), daemon === null],
  ['a real QEMU', () => real(startRealQemu, qemu as string), qemu === null],
] as const)('a job on %s', (_, connect, isMissing) => {
  it.skipIf(isMissing)('that is over before its reply is read gives its outcome', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    const events = client.events({ names: ['JOB_STATUS_CHANGE'] });
    const jobs = [];
    for (let count = 0; count < 20; count += 1) {
      const job = await client.start('blockdev-backup', { 'job-id': `b${count}`, ...COPY });
      expect((await job.done).result).toBe('completed');
      const states: JobState[] = [];
      for await (const status of job) states.push(status);
      expect(states[0]).toBe('created');
      expect(states.at(-1)).toBe('concluded');
      jobs.push(job.id);
    }
    const seen = new Set<string>();
    for await (const event of events) {
      if (event.data.status === 'null') seen.add(event.data.id);
      if (seen.size === jobs.length) break;
    }
    expect([...seen]).toEqual(jobs);
  });

  it.skipIf(isMissing)('whose command is refused leaves no handle behind', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    const refused = client.start('blockdev-backup', { 'job-id': 'b', ...COPY });
    await expect(refused).rejects.toBeInstanceOf(QmpError);
    await expect(refused).rejects.toThrow("Cannot find device='source'");
  });

  it.skipIf(isMissing)('a READY mirror ends in three ways, told apart', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    const mirror = async (id: string): Promise<Awaited<ReturnType<typeof client.start>>> => {
      const job = await client.start('blockdev-mirror', { 'job-id': id, ...COPY });
      await job.ready();
      return job;
    };
    const kept = await mirror('kept');
    await kept.finishWithoutPivot();
    const base = { error: null, id: 'kept' };
    expect(await kept.done).toEqual({ ...base, result: 'completed', request: 'finish' });
    const thrown = await mirror('thrown');
    await thrown.cancel();
    expect(await thrown.done).toMatchObject({ result: 'cancelled', request: 'cancel' });
    await expect(thrown.completed()).rejects.toThrow("Job 'thrown' cancelled");
    const pivoted = await mirror('pivoted');
    await pivoted.complete();
    expect(await pivoted.completed()).toMatchObject({ result: 'completed', request: 'complete' });
    expect(await pivoted.info()).toBeNull();
  });

  it.skipIf(isMissing)('a mirror that is not READY is not thrown away by mistake', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    const limited = { ...COPY, speed: 65536 };
    await using job = await client.start('blockdev-backup', { 'job-id': 'j', ...limited });
    await expect(job.finishWithoutPivot()).rejects.toMatchObject({ kind: 'invalid-state' });
    await expect(job.ready({ signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
    await job.cancel();
    await expect(job.ready()).rejects.toThrow("cancelled before it was ready or standby");
  });

  it.skipIf(isMissing)('stops at an I/O error, visibly, and goes on when resumed', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    const policy = { 'on-source-error': 'stop' } as const;
    const args = { device: 'bad', target: 'target', sync: 'full', ...policy } as const;
    const job = await client.start('blockdev-backup', { 'job-id': 's', ...args });
    const error = await job.stopped();
    expect(error).toMatchObject({ operation: 'read', action: 'stop' });
    await job.reach(['paused']);
    expect((await job.blockInfo())?.['io-status']).toBe('failed');
    await job.resume();
    expect((await job.completed()).result).toBe('completed');
    expect(job.lastError).toMatchObject({ operation: 'read' });
  });

  it.skipIf(isMissing)('waits in PENDING, fails with its error, is put away', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    const manual = { 'auto-finalize': false, 'auto-dismiss': false };
    const first = await client.start('blockdev-backup', { 'job-id': 'f', ...COPY, ...manual });
    await first.reach(['pending']);
    await first.finalize();
    await first.completed();
    expect(await client.job('f').done).toMatchObject({ result: 'completed', error: null });
    await first.dismiss();
    await first.reach(['null']);
    const failing = { device: 'bad', target: 'target', sync: 'full', ...manual } as const;
    const second = await client.start('blockdev-backup', { 'job-id': 'e', ...failing });
    await expect(second.completed()).rejects.toBeInstanceOf(JobError);
    expect(await second.done).toMatchObject({ result: 'failed', error: 'Input/output error' });
    await second[Symbol.asyncDispose]();
    expect(await client.execute('query-jobs')).toEqual([]);
  });

  it.skipIf(isMissing)('a scope that is left cancels its job and waits for it', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    let job = client.job('none');
    job.close();
    {
      const args = { 'job-id': 'x', ...COPY, speed: 65536, 'auto-dismiss': false };
      await using scoped = await client.start('blockdev-backup', args);
      await scoped.pause();
      job = scoped;
    }
    expect(await job.done).toMatchObject({ result: 'cancelled' });
    expect(await client.execute('query-jobs')).toEqual([]);
  });

  it.skipIf(isMissing)('a signal ends the waiting, and the job only if asked to', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    await addNodes(client);
    const args = { 'job-id': 'x', ...COPY, speed: 65536 };
    const job = await client.start('blockdev-backup', args);
    const given = new AbortController();
    const waits = [
      job.completed({ signal: given.signal }),
      job.reach(['concluded'], { signal: given.signal }),
      job.stopped({ signal: given.signal }),
    ];
    given.abort(new Error('given up'));
    for (const wait of waits) await expect(wait).rejects.toThrow('given up');
    expect(await job.info()).not.toBeNull();
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(job.completed({ signal, cancelOnAbort: true })).rejects.toThrow('enough');
    expect(await job.done).toMatchObject({ result: 'cancelled', request: 'cancel' });
  });

  it.skipIf(isMissing)('features are asked for by introspection', async () => {
    await using peerOf = await connect();
    const { client } = peerOf;
    expect(await client.supports('blockdev-mirror')).toBe(true);
    expect(await client.supports('BLOCK_JOB_READY')).toBe(true);
    expect(await client.supports('blockdev-mirror', 'no-such-feature')).toBe(false);
    expect(await client.supports('no-such-command')).toBe(false);
    expect(await client.supports('x-debug-query-block-graph', 'unstable')).toBe(true);
    const schema = await client.schema();
    expect(schema).toBe(await client.schema());
    expect(schema.hasArgument('blockdev-mirror', 'copy-mode')).toBe(true);
    expect(schema.hasArgument('blockdev-mirror', 'copy-made')).toBe(false);
    expect(schema.hasValue('blockdev-mirror', 'copy-mode', 'write-blocking')).toBe(true);
    expect(schema.hasValue('blockdev-add', 'driver', 'qcow2')).toBe(true);
    expect(schema.hasValue('blockdev-add', 'driver', 'qcow9')).toBe(false);
    expect(schema.hasArgument('blockdev-add', 'driver=qcow2.l2-cache-size')).toBe(true);
    expect(schema.hasArgument('blockdev-add', 'driver=raw.l2-cache-size')).toBe(false);
    expect(schema.hasArgument('blockdev-add', 'file.driver=raw.offset')).toBe(true);
    expect(schema.hasResult('query-jobs', 'current-progress')).toBe(true);
    expect(schema.hasArgument('JOB_STATUS_CHANGE', 'status')).toBe(true);
    expect(schema.hasFeature('no-such-command', 'unstable', 'a.b')).toBe(false);
  });
});
