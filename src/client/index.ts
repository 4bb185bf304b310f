// SPDX-License-Identifier: Apache-2.0
export { connect, QmpClient, QmpError } from './client.js';
export type { ClientAddress } from './client.js';
export type { Greeting } from './server-message.js';
export type { WaitOptions } from './runner.js';
export { EventStream } from './event-stream.js';
export type { QmpEvent } from './event-stream.js';
export { JobHandle } from './job-handle.js';
export type { JobOutcome, JobState } from './job-handle.js';
export type {
  CommandArguments,
  CommandName,
  CommandResult,
  EventData,
  EventName,
} from '../api/index.js';
