// SPDX-License-Identifier: Apache-2.0
// block-job-* verbs, query-block-jobs, and the commands that start jobs.

import { setImmediate } from 'node:timers/promises';
import {
  startAmend,
  startCommit,
  startCreate,
  startDriveMirror,
  startMirror,
  startStream,
} from '../../jobs/index.js';
import type { Engine } from '../../engine/index.js';
import type { HandlerFamily } from '../handlers.js';
import { runAction } from '../transaction/index.js';

async function amend(engine: Engine, args: Parameters<typeof startAmend>[1]): Promise<void> {
  await startAmend(engine.jobs, args);
  // As above.
  await setImmediate();
}

export const blockJobCommands: HandlerFamily<
  | 'query-block-jobs'
  | 'block-job-pause'
  | 'block-job-resume'
  | 'block-job-cancel'
  | 'block-job-complete'
  | 'block-job-dismiss'
  | 'block-job-finalize'
  | 'block-job-set-speed'
  | 'block-job-change'
  | 'block-stream'
  | 'block-commit'
  | 'blockdev-mirror'
  | 'drive-mirror'
  | 'blockdev-backup'
  | 'drive-backup'
  | 'blockdev-create'
  | 'x-blockdev-amend'
  | 'blockdev-amend'
> = {
  'query-block-jobs': (engine) =>
    [...engine.jobs.listBlockJobs()].reverse().map((job) => job.blockInfo()),
  'block-job-pause': (engine, { device }) => engine.jobs.requireBlockJob(device).pause(),
  'block-job-resume': (engine, { device }) => engine.jobs.requireBlockJob(device).resume(),
  'block-job-cancel': (engine, { device, force }) =>
    engine.jobs.requireBlockJob(device).cancelBlock(force ?? false),
  'block-job-complete': (engine, { device }) => engine.jobs.requireBlockJob(device).complete(),
  'block-job-dismiss': (engine, { id }) => engine.jobs.requireBlockJob(id).dismiss(),
  'block-job-finalize': (engine, { id }) => engine.jobs.requireBlockJob(id).finalize(),
  'block-job-set-speed': (engine, { device, speed }) =>
    engine.jobs.requireBlockJob(device).setSpeed(speed),
  'block-job-change': (engine, changes) =>
    engine.jobs.requireBlockJob(changes.id).change(changes),
  'block-stream': async (engine, args) => void (await startStream(engine.jobs, args)),
  'block-commit': async (engine, args) => void (await startCommit(engine.jobs, args)),
  'blockdev-mirror': async (engine, args) => void (await startMirror(engine.jobs, args)),
  'drive-mirror': async (engine, args) => void (await startDriveMirror(engine.jobs, args)),
  'blockdev-backup': (engine, data) => runAction(engine, { type: 'blockdev-backup', data }),
  'drive-backup': (engine, data) => runAction(engine, { type: 'drive-backup', data }),
  'blockdev-create': async (engine, args) => {
    await startCreate(engine.jobs, args);
    // A job that fails without any I/O has ended when its reply comes.
    await setImmediate();
  },
  'x-blockdev-amend': amend,
  'blockdev-amend': amend,
};
