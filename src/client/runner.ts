// SPDX-License-Identifier: Apache-2.0
// How commands are run and waited for; what a job handle needs of its connection.

import type { CommandArguments, CommandName, CommandResult } from '../api/index.js';
import type { BlockError } from '../base/index.js';
import type { QmpEvent } from './event-stream.js';

export interface WaitOptions {
  /** Ends the waiting with the signal's reason; what was sent to the server stays sent. */
  readonly signal?: AbortSignal;
}

export interface ExecuteOptions extends WaitOptions {
  /** Out of band, before commands in the queue: wants the `oob` capability and such a command. */
  readonly oob?: boolean;
}

type RequiredKeys<T> = {
  [K in keyof T]-?: Record<never, never> extends Pick<T, K> ? never : K;
}[keyof T];

/** Arguments may be left out where every member is optional. */
export type ExecuteRest<N extends CommandName> = [RequiredKeys<CommandArguments<N>>] extends [never]
  ? [args?: CommandArguments<N>, options?: ExecuteOptions]
  : [args: CommandArguments<N>, options?: ExecuteOptions];

/** Commands that start a job. */
export type JobCommandName = {
  [N in CommandName]: 'job-id' extends keyof CommandArguments<N> ? N : never;
}[CommandName];

/** Their arguments: whoever wants a handle has to name the job. */
export type JobArguments<N extends JobCommandName> = CommandArguments<N> & {
  readonly 'job-id': string;
};

export interface CommandRunner {
  execute<N extends CommandName>(name: N, ...rest: ExecuteRest<N>): Promise<CommandResult<N>>;
  /** Calls back for each event until the result is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
  /** Calls back once when nothing can be said or heard any more; at once if that is so. */
  onLost(listener: (error: BlockError) => void): () => void;
}

/** The promise, or the signal's reason if that comes first. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', abort))
      .catch(() => undefined);
  });
}
