// SPDX-License-Identifier: Apache-2.0
// What jobs come to on any server, one after the other: a refusal, or progress and error of the job
// as it is concluded.
//
// The reference measures how fast it derives keys, and fails at that now and then: such a job is
// begun again.

import { command, untilEvent } from './transcript.js';
import type { Conversation, Line } from './transcript.js';

const TRIES = 20;
const MISMEASURED = 'Unable to get accurate CPU usage';

interface JobInfo {
  readonly error?: string;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
}

/** `Name: text` of an error without a job, else the error or `done`, with the progress. */
export async function jobOutcome(
  conversation: Conversation,
  verb: string,
  args: Line,
): Promise<string> {
  let outcome = MISMEASURED;
  for (let tried = 0; tried < TRIES && outcome.startsWith(MISMEASURED); tried += 1) {
    const begun = untilEvent('concluded j or null j', verb, { 'job-id': 'j', ...args });
    const refusal = (await conversation.play(begun)).find((line) => 'error' in line);
    if (refusal !== undefined) {
      const { class: name, desc } = refusal['error'] as Record<string, string>;
      return `${name}: ${desc}`;
    }
    const [answer] = await conversation.ask(command('query-jobs'));
    await conversation.play(command('job-dismiss', { id: 'j' }));
    const [job] = (answer?.['return'] ?? []) as readonly JobInfo[];
    if (job === undefined) return 'gone';
    outcome = `${job.error ?? 'done'}, ${job['current-progress']} of ${job['total-progress']}`;
  }
  return outcome;
}
