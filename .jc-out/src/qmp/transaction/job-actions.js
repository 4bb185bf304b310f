// SPDX-License-Identifier: Apache-2.0
// Actions that start jobs: created when they are prepared, started when all is committed.
import { prepareBackup, prepareDriveBackup } from '../../jobs/index.js';
export const jobActions = {
    'blockdev-backup': async ({ engine, jobs }, data) => jobAction(await prepareBackup(engine.jobs, data, jobs)),
    'drive-backup': async ({ engine, jobs }, data) => jobAction(await prepareDriveBackup(engine.jobs, data, jobs)),
};
function jobAction(prepared) {
    return {
        commit: () => prepared.start(),
        abort: () => prepared.abort(),
        afterwards: () => prepared.throughIfEmpty(),
    };
}
