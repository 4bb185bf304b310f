// SPDX-License-Identifier: Apache-2.0
export { connect, QmpClient, QmpError } from './client.js';
export type { ClientAddress, ConnectOptions } from './client.js';
export type { Greeting } from './server-message.js';
export type { ExecuteOptions, JobArguments, JobCommandName, WaitOptions } from './runner.js';
export { EventStream } from './event-stream.js';
export type { AnyEvent, EventOptions, QmpEvent } from './event-stream.js';
export { JobHandle } from './job-handle.js';
export { JobError } from './job-outcome.js';
export type { JobIoError, JobOutcome, JobRequest, JobState } from './job-outcome.js';
export { ServerSchema } from './server-schema.js';
export type {
  CommandArguments,
  CommandName,
  CommandResult,
  EventData,
  EventName,
} from '../api/index.js';
