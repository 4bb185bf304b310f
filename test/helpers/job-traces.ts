// SPDX-License-Identifier: Apache-2.0
// Lives of jobs, one for each kind of job and way to end: what is sent, and which events count.
//
// Images are made by our own command line, so that no peer is needed to play them to our server.

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { command, untilEvent } from './transcript.js';
import type { Line, Step } from './transcript.js';

const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const MIB = 1024 * 1024;

export interface JobTrace {
  readonly steps: readonly Step[];
  /** How far a job came before it was cancelled or paused is chance. */
  readonly limited?: boolean;
}

/** base.raw (a MiB written) below top.qcow2 (another MiB) below the empty over.qcow2. */
export function makeTraceImages(directory: string): void {
  const path = (name: string): string => join(directory, name);
  const base = Buffer.alloc(4 * MIB);
  base.fill(7, 0, MIB);
  writeFileSync(path('base.raw'), base);
  writeFileSync(path('data.raw'), Buffer.from(base).fill(9, 2 * MIB, 3 * MIB));
  const img = (...words: readonly string[]): void =>
    void execFileSync(process.execPath, [MAIN, 'img', ...words], { cwd: directory });
  const backing = ['-B', 'base.raw', '-F', 'raw'];
  img('convert', '-O', 'qcow2', ...backing, 'data.raw', 'top.qcow2');
  img('create', '-q', '-f', 'qcow2', '-b', 'top.qcow2', '-F', 'qcow2', 'over.qcow2');
}

const MANUAL = { 'auto-finalize': false, 'auto-dismiss': false } as const;
const SLOW = { speed: 65536 } as const;
const hello = command('qmp_capabilities');

/** Nodes base, top and over; reads and writes of a bad `base` fail. */
function chain(directory: string, isBad = false): Step[] {
  const file = (name: string): object => ({ driver: 'file', filename: join(directory, name) });
  const raw = { driver: 'raw', file: file('base.raw') };
  const errors = ['read', 'write'].map((iotype) => ({ event: 'none', iotype, errno: 5 }));
  const base = isBad ? { driver: 'blkdebug', image: raw, 'inject-error': errors } : raw;
  const qcow2 = (name: string, backing: string): string =>
    command('blockdev-add', {
      driver: 'qcow2', 'node-name': name, file: file(`${name}.qcow2`), backing,
    });
  return [
    hello,
    command('blockdev-add', { 'node-name': 'base', ...base }),
    qcow2('top', 'base'),
    qcow2('over', 'top'),
    command('blockdev-add', { driver: 'null-co', 'node-name': 'target', size: 4 * MIB }),
  ];
}

interface Start {
  readonly name: string;
  readonly args: Line;
  /** Mirrors and active commits go to READY first. */
  readonly ready?: boolean;
}

const STARTS: Readonly<Record<string, Start>> = {
  stream: { name: 'block-stream', args: { device: 'over' } },
  commit: {
    name: 'block-commit',
    args: { device: 'over', 'top-node': 'top', 'base-node': 'base' },
  },
  'active commit': { name: 'block-commit', args: { device: 'over' }, ready: true },
  backup: { name: 'blockdev-backup', args: { device: 'over', target: 'target', sync: 'full' } },
  mirror: {
    name: 'blockdev-mirror',
    args: { device: 'over', target: 'target', sync: 'full' },
    ready: true,
  },
};

const id = { id: 'j' } as const;

function start(job: Start, until: string, more: Line = {}): Step {
  return untilEvent(until, job.name, { 'job-id': 'j', ...job.args, ...more });
}

/** Every trace by its name; `directory` holds the images. */
export function jobTraces(directory: string): ReadonlyMap<string, JobTrace> {
  const traces = new Map<string, JobTrace>();
  for (const [kind, job] of Object.entries(STARTS)) addTraces(traces, { kind, job, directory });
  const create = (options: Line): Step =>
    untilEvent('concluded j', 'blockdev-create', { 'job-id': 'j', options });
  const dismiss = command('job-dismiss', id);
  const filename = join(directory, 'new.raw');
  traces.set('create', {
    steps: [hello, create({ driver: 'file', filename, size: MIB }), dismiss],
  });
  traces.set('create fails', {
    steps: [hello, create({ driver: 'qcow2', file: 'nowhere', size: MIB }), dismiss],
  });
  return traces;
}

function addTraces(
  traces: Map<string, JobTrace>,
  { kind, job, directory }: { kind: string; job: Start; directory: string },
): void {
  const nodes = chain(directory);
  const end = (verb: string): Step => untilEvent('null j', verb, id);
  const manualEnd = [untilEvent('concluded j', 'job-finalize', id), end('job-dismiss')];
  if (job.ready === true) {
    const ready = start(job, 'ready j');
    traces.set(`${kind} completes`, { steps: [...nodes, ready, end('job-complete')] });
    traces.set(`${kind} is cancelled when READY`, { steps: [...nodes, ready, end('job-cancel')] });
    const soft = untilEvent('null j', 'block-job-cancel', { device: 'j' });
    traces.set(`${kind} is finished without a pivot`, { steps: [...nodes, ready, soft] });
    const pending = untilEvent('BLOCK_JOB_PENDING', 'job-complete', id);
    traces.set(`${kind} is finalized by hand`, {
      steps: [...nodes, start(job, 'ready j', MANUAL), pending, ...manualEnd],
    });
  } else {
    traces.set(kind, { steps: [...nodes, start(job, 'null j')] });
    traces.set(`${kind} is finalized by hand`, {
      steps: [...nodes, start(job, 'BLOCK_JOB_PENDING', MANUAL), ...manualEnd],
    });
    const held = start(job, 'BLOCK_JOB_PENDING', { 'auto-finalize': false });
    traces.set(`${kind} is cancelled in PENDING`, { steps: [...nodes, held, end('job-cancel')] });
  }
  traces.set(`${kind} is cancelled`, {
    steps: [...nodes, start(job, 'running j', SLOW), end('job-cancel')],
    limited: true,
  });
  if (job.ready !== true) {
    traces.set(`${kind} fails`, { steps: [...chain(directory, true), start(job, 'null j')] });
  }
}

/** Its events; pauses of drained sections are an affair of the program. */
export function eventsOf(said: readonly Line[], trace: JobTrace): readonly Line[] {
  const events = said.filter((line) => 'event' in line);
  const kept = events.filter((line, at) => !isDrain(events, at) && !isDrain(events, at - 1, line));
  if (trace.limited !== true) return kept;
  return kept.map((line) => {
    const data = line['data'] as Line;
    return 'offset' in data ? { ...line, data: { ...data, offset: 0, len: 0 } } : line;
  });
}

const BACK: Readonly<Record<string, string>> = { paused: 'running', standby: 'ready' };

/** A pause at `at` that is taken back by the next event. */
function isDrain(events: readonly Line[], at: number, next = events[at + 1]): boolean {
  const back = BACK[statusOf(events[at])];
  return back !== undefined && statusOf(next) === back;
}

function statusOf(line: Line | undefined): string {
  return (line?.['data'] as { readonly status?: string } | undefined)?.status ?? '';
}
