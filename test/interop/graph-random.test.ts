// SPDX-License-Identifier: Apache-2.0
// Random commands on a graph, the same for a real daemon and for ours: same refusals, same graph,
// same events after each, same images in the end.
// BLOCKWRIGHT_CAMPAIGN=N plays N sequences instead of a few (`npm run test:campaign`).

import { afterAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { randomPlayer } from '../helpers/graph-commands.js';
import { playBoth } from '../helpers/graph-contest.js';
import { forgetImages } from '../helpers/graph-images.js';
import { hasReference } from '../helpers/reference.js';
import { forEachSeed } from '../helpers/seeds.js';

const CAMPAIGN = process.env['BLOCKWRIGHT_CAMPAIGN'];
const A_FEW = [1, 3, 4, 5, 6, 8, 9, 10, 12];
const SEEDS = CAMPAIGN === undefined ? A_FEW : Number(CAMPAIGN);
const COUNT = typeof SEEDS === 'number' ? SEEDS : SEEDS.length;
const LENGTH = 25;

describe.skipIf(!hasReference)('random commands on a graph', () => {
  afterAll(forgetImages);

  it('do to ours what they do to a real daemon', async (context) => {
    let accepted = 0;
    await forEachSeed(SEEDS, async (seed) => {
      const outcome = await playBoth(randomPlayer(new SeededRandom(seed), LENGTH));
      accepted += outcome.accepted;
      const played = outcome.played.map((command) => JSON.stringify(command)).join('\n');
      if (outcome.kind === 'reference-died') {
        await context.annotate(`seed ${seed}: the real daemon ended with ${played}`, 'skipped');
      }
      if (outcome.kind === 'on-purpose') {
        await context.annotate(`seed ${seed}: ${outcome.difference}`, 'on purpose');
        return;
      }
      expect(outcome.difference, played).toBe('');
    });
    expect(accepted).toBeGreaterThan(0);
  }, COUNT * 30_000);
});
