// SPDX-License-Identifier: Apache-2.0
// A key that takes minutes to derive ends with the job, the open or the engine that it is for, with
// nothing written; and an image that asks for hours is refused.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../../src/base/index.js';
import { createEngine } from '../../../src/engine/index.js';
import type { Engine } from '../../../src/engine/index.js';
import { startAmend, startCreate } from '../../../src/jobs/index.js';
import type { Job } from '../../../src/jobs/index.js';
import { runCommand } from '../../../src/qmp/dispatch.js';
import { parseJson } from '../../../src/wire/index.js';
import { errorOf, MemoryHost } from '../../helpers/graph.js';
import { LUKS_PASSWORD, luksHead } from '../../helpers/luks.js';

const MINUTES = 2 ** 31 - 1;
const ACTIVE = 0x00ac71f3;
const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
};

let host: MemoryHost;
let engine: Engine;
beforeEach(async () => {
  host = new MemoryHost();
  engine = await createEngine({ host, lanes: 0 });
  await engine.objects.add({ 'qom-type': 'secret', id: 's', data: LUKS_PASSWORD });
});
afterEach(() => engine.close());

/** Every keyslot is in use and wants what a header can say. */
async function addHostileImage(): Promise<void> {
  const bytes = (await luksHead()).slice();
  const view = new DataView(bytes.buffer);
  for (let slot = 0; slot < 8; slot += 1) {
    view.setUint32(208 + slot * 48, ACTIVE);
    view.setUint32(208 + slot * 48 + 4, MINUTES);
  }
  view.setUint32(164, MINUTES);
  const file = await host.createFile('hostile.luks');
  await file.write(bytes, 0);
  await file.close();
}

const hostile = {
  driver: 'luks',
  'node-name': 'hostile',
  'key-secret': 's',
  file: { driver: 'file', filename: 'hostile.luks' },
} as const;

async function startLongCreate(): Promise<Job> {
  const file = await host.createFile('new.luks');
  await file.close();
  const options = {
    driver: 'luks',
    file: { driver: 'file', filename: 'new.luks' },
    size: 4096,
    'key-secret': 's',
    'iter-time': MINUTES,
  };
  const job = await startCreate(engine.jobs, { 'job-id': 'j', options });
  await turns(20);
  expect(job.info().status).toBe('running');
  return job;
}

const image = { ...hostile, file: { driver: 'file', filename: 'old.luks' } };

async function startLongAmend(): Promise<Job> {
  host.putFile('old.luks', await luksHead());
  await engine.addNode(image);
  const options = {
    driver: 'luks',
    state: 'active',
    'new-secret': 's',
    'iter-time': MINUTES,
  } as const;
  const job = await startAmend(engine.jobs, { 'job-id': 'j', 'node-name': 'hostile', options });
  await turns(20);
  expect(job.info().status).toBe('running');
  return job;
}

/** As a client of QMP. */
function run(command: string, args: object): Promise<unknown> {
  const plain = parseJson(JSON.stringify(args)) as JsonObject;
  return runCommand(engine, { command, args: plain, outOfBand: false });
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await host.stat(path))?.size;
}

describe('a key that takes minutes to derive', () => {
  it('ends with its job, nothing written', async () => {
    const job = await startLongCreate();
    await job.cancel();
    await job.ended;
    expect(job.info()).toMatchObject({ status: 'concluded', error: 'Operation canceled' });
    expect(await sizeOf('new.luks')).toBe(0);
  });

  it('ends with the amend that adds a keyslot, nothing written', async () => {
    const before = await luksHead();
    const job = await startLongAmend();
    await job.cancel();
    await job.ended;
    expect(job.info()).toMatchObject({ status: 'concluded', error: 'Operation canceled' });
    expect(Buffer.compare(host.fileContents('old.luks'), before)).toBe(0);
  });

  it.each(['job-cancel', 'quit'])('ends with %s, also where a drain waits for it', async (verb) => {
    const job = await startLongAmend();
    const options = { ...image, 'read-only': true };
    const reopened = run('blockdev-reopen', { options: [options] });
    await turns(20);
    await run(verb, verb === 'quit' ? {} : { id: 'j' });
    await reopened;
    await job.ended;
    expect(job.info()).toMatchObject({ error: 'Operation canceled' });
    expect(Buffer.compare(host.fileContents('old.luks'), await luksHead())).toBe(0);
  });

  it('ends with the engine, whose job it is, also where a drain waits for it', async () => {
    const job = await startLongAmend();
    const change = { ...image, 'read-only': true };
    const reopened = engine.exclusive(() => engine.graph.reopen([change]));
    await turns(20);
    await engine.close();
    await reopened;
    expect(job.info()).toMatchObject({ error: 'Operation canceled' });
  });

  it('ends with the engine, whose job it is', async () => {
    await startLongCreate();
    await engine.close();
    expect(await sizeOf('new.luks')).toBe(0);
  });

  it('ends with the engine, when an image is opened', async () => {
    await addHostileImage();
    const options = { ...hostile, 'key-derivation-limit': 1_000_000 };
    const opened = errorOf(() => engine.exclusive(() => engine.addNode(options)));
    await turns(20);
    await engine.close();
    expect((await opened).message).toBe('The derivation of a key was cancelled');
  });

  it('is not begun where the image asks for it', async () => {
    await addHostileImage();
    const error = await errorOf(() => engine.addNode(hostile));
    expect(error.message).toMatch(/^Unlocking 'hostile.luks' would take about \d+ s with the /);
    expect(error.message).toContain('the 2147483647 iterations of keyslot 0');
    const wrong = await errorOf(() => engine.addNode({ ...hostile, 'key-derivation-limit': 0 }));
    expect(wrong.message).toContain('at least 1 second');
  });
});
