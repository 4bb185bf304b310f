// SPDX-License-Identifier: Apache-2.0
// Events of jobs against the traces kept in job-traces.json, on our server and on a real daemon.
//
// BLOCKWRIGHT_RECORD=1 writes the traces anew, from the real daemon and from nothing else.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { eventsOf, jobTraces, makeTraceImages } from '../helpers/job-traces.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { playAll } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const FILE = new URL('job-traces.json', import.meta.url).pathname;
const isRecording = process.env['BLOCKWRIGHT_RECORD'] === '1';
const golden = isRecording
  ? {}
  : (JSON.parse(readFileSync(FILE, 'utf8')) as Readonly<Record<string, readonly string[]>>);
const daemon = peer('qemu-storage-daemon');

let images = '';
beforeAll(() => {
  images = mkdtempSync(join(tmpdir(), 'trace-images-'));
  makeTraceImages(images);
});
afterAll(() => rmSync(images, { recursive: true, force: true }));

/** One line an event, so that a trace reads like a story; members in one order. */
function told(event: Line): string {
  const data = event['data'] as Line;
  const members = Object.keys(data).sort().map((name) => [name, data[name]] as const);
  return `${String(event['event'])} ${JSON.stringify(Object.fromEntries(members))}`;
}

async function traceOf(name: string, which: 'own' | 'real'): Promise<readonly string[]> {
  const directory = mkdtempSync(join(tmpdir(), 'traces-'));
  try {
    cpSync(images, directory, { recursive: true });
    const trace = jobTraces(directory).get(name);
    if (trace === undefined) throw new Error(`no trace ${name}`);
    await using server =
      which === 'own'
        ? await startOwnDaemon(directory)
        : await startRealDaemon(daemon as string, directory);
    const socket = 'socket' in server ? server.socket : await server.connect();
    const record = await playAll(socket, trace.steps);
    socket.destroy();
    const refused = record.flatMap(({ said }) => said).filter((line) => 'error' in line);
    expect(refused).toEqual([]);
    return eventsOf(record.flatMap(({ said }) => said), trace).map(told);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const names = [...jobTraces('').keys()];

describe.skipIf(!isRecording)('recording', () => {
  const traces: Record<string, readonly string[]> = {};
  it.each(names)('%s', async (name) => {
    traces[name] = await traceOf(name, 'real');
  });
  afterAll(() => writeFileSync(FILE, `${JSON.stringify(traces, null, 1)}\n`));
});

describe.skipIf(isRecording)('the events of a job that', () => {
  beforeAll(() => expect(Object.keys(golden)).toEqual(names));

  it.each(names)('%s: ours', async (name) => {
    expect(await traceOf(name, 'own')).toEqual(golden[name]);
  });

  it.skipIf(daemon === null).each(names)('%s: the real daemon’s', async (name) => {
    expect(await traceOf(name, 'real')).toEqual(golden[name]);
  });
});
