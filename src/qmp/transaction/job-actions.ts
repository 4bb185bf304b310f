// SPDX-License-Identifier: Apache-2.0
// Actions that start jobs: created when they are prepared, started when all is committed.

import { prepareBackup, prepareDriveBackup } from '../../jobs/index.js';
import type { PreparedJob } from '../../jobs/index.js';
import type { ActionFamily, PreparedAction } from './action.js';

export const jobActions: ActionFamily<'blockdev-backup' | 'drive-backup'> = {
  'blockdev-backup': async ({ engine, jobs }, data) =>
    jobAction(await prepareBackup(engine.jobs, data, jobs)),
  'drive-backup': async ({ engine, jobs }, data) =>
    jobAction(await prepareDriveBackup(engine.jobs, data, jobs)),
};

function jobAction(prepared: PreparedJob): PreparedAction {
  return {
    commit: () => prepared.start(),
    abort: () => prepared.abort(),
    afterwards: () => prepared.throughIfEmpty(),
  };
}
