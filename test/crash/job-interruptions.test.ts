// SPDX-License-Identifier: Apache-2.0
// Every job is cancelled, paused, drained, slowed down, told to end, met by errors under each
// policy or killed, at awaits all over its life, while a guest writes: it ends, nothing of it
// stays, the guest reads what it wrote, images are sound, and bitmaps know of every change.
//
// By default some pairs of job and action are played at one await each, in a campaign
// (BLOCKWRIGHT_CAMPAIGN=N) all of them at N awaits, 32 at most, spread over the whole life, which
// has 130 to 2000. A failure names what replays it alone.
import { describe, it } from 'vitest';
import { lengthOfLife, playInterruption } from '../helpers/interrupted-job.js';
import { JOB_ACTIONS } from '../helpers/job-actions.js';
import { JOB_CASES } from '../helpers/job-cases.js';
import type { JobCase } from '../helpers/job-cases.js';

const campaign = process.env['BLOCKWRIGHT_CAMPAIGN'];
/** With so many of each pair a campaign takes about twenty minutes of one core. */
const MOST_SAMPLES = 32;
const SAMPLES = Math.min(MOST_SAMPLES, Math.max(1, Number(campaign ?? 1)));
const STEP = campaign === undefined ? 13 : 1;
const REPLAY = process.env['BLOCKWRIGHT_SEED'];
const LIMIT_MS = campaign === undefined ? 60_000 : 3_600_000;

async function playAll(name: string, kind: JobCase, index: number): Promise<void> {
  const length = await lengthOfLife(kind);
  for (const [at, [title, action]] of Object.entries(JOB_ACTIONS).entries()) {
    if ((at + index) % STEP !== 0) continue;
    for (let sample = 0; sample < SAMPLES; sample += 1) {
      const seed = 1 + (index * 1000 + at) * 1000 + sample;
      const share = ((seed * 2_654_435_761) % 4096) / 4096;
      const moment = 1 + Math.floor(((sample + share) / SAMPLES) * length);
      await playInterruption({ name, kind, title, action, at: moment, seed });
    }
  }
}

async function replay(text: string, name: string, kind: JobCase): Promise<void> {
  const [job, title = '', at, seed] = text.split('/');
  const action = JOB_ACTIONS[title];
  if (job !== name || action === undefined) return;
  await playInterruption({ name, kind, title, action, at: Number(at), seed: Number(seed) });
}

describe('interruptions', () => {
  for (const [index, [name, kind]] of Object.entries(JOB_CASES).entries()) {
    const title = `${name}: whatever comes whenever, nothing is lost or left behind`;
    const play = (): Promise<void> =>
      REPLAY === undefined ? playAll(name, kind, index) : replay(REPLAY, name, kind);
    it(title, play, LIMIT_MS);
  }
});
