// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import type { Node } from '../../../src/block/index.js';
import { SourceDiscard } from '../../../src/jobs/backup/source-discard.js';

const RANGES = [
  { offset: 0, length: 64 },
  { offset: 256, length: 64 },
];

function discardOver(flush: () => Promise<void>) {
  const acts: string[] = [];
  const source = {
    driver: { supports: { write: 'native' } },
    discard: ({ offset }: { offset: number }) => void acts.push(`discard ${offset}`),
    flush: () => Promise.resolve(),
  } as unknown as Node;
  const target = {
    flush: () => {
      acts.push('flush');
      return flush();
    },
  } as unknown as Node;
  const ends = { source: { node: source }, target: { node: target } };
  return { acts, discard: new SourceDiscard(ends) };
}

it('the target is flushed once before the source lets go of all ranges of a batch', async () => {
  const { acts, discard } = discardOver(() => Promise.resolve());
  expect(await discard.discard(RANGES)).toBeNull();
  expect(acts).toEqual(['flush', 'discard 0', 'discard 256']);
});

it('a flush that fails leaves every range of a batch in the source', async () => {
  const { acts, discard } = discardOver(() => Promise.reject(new BlockError('io', 'no flush')));
  expect((await discard.discard(RANGES))?.side).toBe('target');
  expect(acts).toEqual(['flush']);
});
