// SPDX-License-Identifier: Apache-2.0
// job-* verbs and query-jobs (the newest job first, as clients know it). A verb is awaited, so its
// events precede its reply.
export const jobCommands = {
    'query-jobs': (engine) => [...engine.jobs.list()].reverse().map((job) => job.info()),
    'job-pause': (engine, { id }) => engine.jobs.require(id).pause(),
    'job-resume': (engine, { id }) => engine.jobs.require(id).resume(),
    'job-cancel': (engine, { id }) => engine.jobs.require(id).cancel(),
    'job-complete': (engine, { id }) => engine.jobs.require(id).complete(),
    'job-dismiss': (engine, { id }) => engine.jobs.require(id).dismiss(),
    'job-finalize': (engine, { id }) => engine.jobs.require(id).finalize(),
};
