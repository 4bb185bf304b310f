// SPDX-License-Identifier: Apache-2.0
// Tests of every kind, one runner; the build comes first, since lanes run from dist.
//
// Files share a process, which loads (and optimizes) src once; those about command lines another,
// which stays small and so starts programs faster. Those that replace modules have a process each.
import { defineConfig } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';
import type { TestSpecification } from 'vitest/node';

const SHARED = [
  'test/{conformance,crash,interop,malformed,property,protocol,unit}/**/*.test.ts',
];
/** Files that replace modules of Node. */
const REPLACING = ['test/unit/host/new-file-sync.test.ts'];

/** Files that take long for their size, by which the others are ordered until they are known. */
const LONG =
  /\/(huge-tables|job-interruptions|kills|qcow2-data|blkdebug-events|interop\/jobs)\.test/;

/** The longest first, so that no worker is left alone with one in the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => (LONG.test(moduleId) ? 0 : 1);
    const sorted = await super.sort(files);
    return sorted.sort((a, b) => (a.project === b.project ? rank(a) - rank(b) : 0));
  }
}

const common = {
  root: new URL('..', import.meta.url).pathname,
  testTimeout: 60_000,
  hookTimeout: 60_000,
  maxWorkers: 2,
};

export default defineConfig({
  test: {
    ...common,
    globalSetup: ['test/helpers/global-setup.ts'],
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          ...common,
          name: 'programs',
          include: ['test/**/*.test.ts'],
          exclude: SHARED,
          isolate: false,
        },
      },
      {
        test: {
          ...common,
          name: 'replacing',
          include: REPLACING,
        },
      },
      {
        test: {
          ...common,
          name: 'shared',
          include: SHARED,
          exclude: REPLACING,
          isolate: false,
        },
      },
    ],
  },
});
