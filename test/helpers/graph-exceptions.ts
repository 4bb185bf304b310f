// SPDX-License-Identifier: Apache-2.0
// Where a contest of two daemons may differ, each with its reason, and nothing else.

import type { GraphCommand } from './graph-contest.js';
import { inOrder } from './graph-images.js';
import type { GraphState } from './graph-state.js';
import type { Line } from './transcript.js';

/** Answers and events of a command as compared. Ours tell the value that is no magic number. */
export function sameAnswer(command: GraphCommand, said: readonly Line[]): string[] {
  const lines = command.job === undefined ? said : said.flatMap(withoutPace);
  return lines.map((line) => inOrder(line).replace(/ \((magic|version) \d+\)/, ''));
}

/** How far a job was, and whether its reply came before its first event, is chance. */
function withoutPace(line: Line): Line[] {
  if ('return' in line) return [];
  if (line['event'] === 'BLOCK_WRITE_THRESHOLD') return [];
  const data = line['data'] as Line | undefined;
  if (data?.['status'] === 'paused' || data?.['status'] === 'running') return [];
  return [JSON.parse(JSON.stringify(line, (key, value: unknown) =>
    key === 'offset' ? undefined : value)) as Line];
}

/** What a disk gives to a file, and how far a format has written its file by now. */
const CHANCE = [/ image actual-size = /, / image dirty-flag = /];

/**
 * Of a data file that is none, the reference tells this once a reopen was given up; bitmaps without
 * a name are how its copy-before-write remembers what to copy.
 */
const FILTERS = new Set([
  'blkdebug', 'blklogwrites', 'blkverify', 'compress', 'copy-before-write', 'copy-on-read',
  'throttle',
]);

const THEIRS_ONLY = [/ data-file-raw = false$/];

/**
 * The reference does not notice that a node below a filter grew through another one. How long the
 * file of an image is depends on where its clusters went.
 */
const SIZE = /^node (\S+) image virtual-size = /;

/** Facts of a graph as compared. */
export function sameFacts({ facts, drivers, edges }: GraphState): string[] {
  const stale = new Set<string>();
  for (const [name, driver] of drivers) {
    if (driver === 'file' || FILTERS.has(driver)) stale.add(name);
  }
  for (const name of stale) {
    for (const [parent, , child] of edges) {
      if (child === name && drivers.get(child) !== 'file') stale.add(parent);
    }
  }
  return facts.filter((fact) => {
    const [, name = ''] = SIZE.exec(fact) ?? [];
    return !stale.has(name) && ![...CHANCE, ...THEIRS_ONLY].some((pattern) => pattern.test(fact));
  });
}

/** What is left on disk as compared. */
export function sameReport(report: Line): Line {
  return report;
}
