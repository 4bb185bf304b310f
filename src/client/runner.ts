// SPDX-License-Identifier: Apache-2.0
// How commands are run and waited for; what a job handle needs of its connection.

import type { CommandArguments, CommandName, CommandResult } from '../api/index.js';
import type { QmpEvent } from './event-stream.js';

export interface WaitOptions {
  readonly signal?: AbortSignal;
}

type RequiredKeys<T> = {
  [K in keyof T]-?: Record<never, never> extends Pick<T, K> ? never : K;
}[keyof T];

/** Arguments may be left out where every member is optional. */
export type ExecuteRest<N extends CommandName> = [RequiredKeys<CommandArguments<N>>] extends [never]
  ? [args?: CommandArguments<N>, options?: WaitOptions]
  : [args: CommandArguments<N>, options?: WaitOptions];

export interface CommandRunner {
  execute<N extends CommandName>(name: N, ...rest: ExecuteRest<N>): Promise<CommandResult<N>>;
  onEvent(listener: (event: QmpEvent) => void): () => void;
  readonly closed: Promise<void>;
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
