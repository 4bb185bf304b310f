// SPDX-License-Identifier: Apache-2.0
// Where a contest of two daemons may differ, each with its reason, and nothing else.

import type { GraphCommand } from './graph-contest.js';
import { inOrder } from './graph-images.js';
import type { GraphState } from './graph-state.js';
import type { Line } from './transcript.js';

/** Answers and events of a command as compared. */
export function sameAnswer(command: GraphCommand, said: readonly Line[]): string[] {
  const lines = command.job === undefined ? said : said.flatMap(withoutPace);
  return lines.map((line) => inOrder(line)
    // How much metadata one write takes along.
    .replace(/"amount-exceeded":\d+/, '"amount-exceeded":0'));
}

/** How far a job was, and whether its reply came before its first event, is chance. */
function withoutPace(line: Line): Line[] {
  if ('return' in line) return [];
  if (line['event'] === 'BLOCK_WRITE_THRESHOLD') return [];
  const data = line['data'] as Line | undefined;
  // How much a job that failed had before it counts bytes in its own order.
  const failed = data?.['error'] !== undefined;
  if (data?.['status'] === 'paused' || data?.['status'] === 'running') return [];
  return [JSON.parse(JSON.stringify(line, (key, value: unknown) =>
    key === 'offset' || (failed && key === 'len') ? undefined : value)) as Line];
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
 * The reference does not notice that a file, or a node below a filter, grew through another one.
 * How long the file of an image is depends on where its clusters went.
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
  for (const name of sharedFiles(facts, drivers)) {
    for (const [parent, , child] of edges) {
      if (child === name && drivers.get(parent) === 'raw') stale.add(parent);
    }
  }
  return facts.filter((fact) => {
    const [, name = ''] = SIZE.exec(fact) ?? [];
    return !stale.has(name) && ![...CHANCE, ...THEIRS_ONLY].some((pattern) => pattern.test(fact));
  });
}

/** Nodes of files that other nodes have open too. */
function sharedFiles(
  facts: readonly string[],
  drivers: GraphState['drivers'],
): readonly string[] {
  const opened = facts.flatMap((fact) => {
    const [, name = '', file = ''] = /^node (\S+) file = (.*)$/.exec(fact) ?? [];
    return drivers.get(name) === 'file' ? [{ name, file }] : [];
  });
  return opened
    .filter((one) => opened.some((other) => other !== one && other.file === one.file))
    .map(({ name }) => name);
}

/** What both said to one command. */
interface Sayings {
  readonly theirs: readonly Line[];
  readonly ours: readonly Line[];
  readonly difference: string;
}

interface Purpose {
  readonly command: RegExp;
  readonly theirs: RegExp;
  readonly ours: RegExp;
  /** Every line of the difference; absent: whatever they are. */
  readonly lines?: RegExp;
  readonly reason: string;
}

/** Where one accepts what the other refuses; the graphs are others from there on. */
const PURPOSES: readonly Purpose[] = [
  {
    command: /"compress":true/,
    theirs: /BLOCK_JOB_ERROR/,
    ours: /BLOCK_JOB_COMPLETED/,
    reason: 'a compressed cluster takes the place of one that is there; the reference fails (EIO)',
  },
  {
    command: /^block_resize/,
    theirs: /"return"/,
    ours: /Copying before the write failed/,
    reason: 'what copy-before-write was to keep is not cut off before it was copied',
  },
  {
    command: /^block_resize/,
    theirs: /Failed to zero out new clusters: Operation not supported/,
    ours: /"return"/,
    reason: 'a version 2 image over a longer backing file grows, hiding it by zeroes as data',
  },
  {
    command: /^(block-stream|block-commit|blockdev-(snapshot|reopen))/,
    theirs: /Cannot change the option 'force-share'/,
    ours: /"return"|JOB_STATUS_CHANGE/,
    reason: 'the reference cannot reopen what inherits force-share, even to start a job',
  },
  {
    command: /^block-commit/,
    theirs: /"status":"aborting"/,
    ours: /"status":"aborting"/,
    lines: /^reference: +node \S+ ro = false$|^ours: +node \S+ ro = true$|^\S+ +edge /,
    reason: 'a base that a commit of the active layer gave up is read-only again',
  },
  {
    command: /^block-commit .*block-job-cancel$/,
    theirs: /BLOCK_JOB_COMPLETED/,
    ours: /BLOCK_JOB_COMPLETED/,
    lines: /^reference: +node \S+ ro = false$|^ours: +node \S+ ro = true$|^\S+ +edge /,
    reason: 'a base that a commit of the active layer stayed away from is read-only again',
  },
  {
    command: /./,
    theirs: /"return"/,
    ours: /Backing format name too long/,
    reason: 'the reference cuts the name of a driver to what a header holds, which opens nothing',
  },
];

/**
 * Why the two did not do the same to a command, or null when they should have. `unchanged` says
 * that our graph is as it was before the command.
 */
export function differsOnPurpose(
  command: GraphCommand,
  said: Sayings,
  unchanged: boolean,
): string | null {
  const refused = [said.theirs, said.ours].every((lines) => lines.some((line) => 'error' in line));
  if (refused && unchanged) return 'what is refused leaves something behind in the reference';
  const what = `${command.execute} ${JSON.stringify(command.arguments)}`;
  const sent = `${what} ${command.finish ?? ''}`.trim();
  const [theirs, ours] = [JSON.stringify(said.theirs), JSON.stringify(said.ours)];
  const found = PURPOSES.find((each) =>
    each.command.test(sent) && each.theirs.test(theirs) && each.ours.test(ours) &&
    said.difference.split('\n').every((line) => each.lines?.test(line) ?? true));
  return found?.reason ?? null;
}

/**
 * Whether the bytes of a qcow2 file are, or become by a command, data of another image: where the
 * clusters of a file are is each player's own business.
 */
export function readsImageFiles(state: GraphState, command: GraphCommand): boolean {
  const { facts, drivers, edges } = state;
  const said = JSON.stringify(command);
  return [...drivers].some(([name, driver]) => {
    const own = (fact: string): boolean =>
      fact.startsWith(`node ${name} file = `) && fact.endsWith('.qcow2"');
    if (driver !== 'file' || !facts.some(own)) return false;
    const plain = edges.some(([parent, edge, child]) =>
      child === name && (edge !== 'file' || drivers.get(parent) !== 'qcow2'));
    return plain || (command.job !== undefined && said.includes(`"${name}"`));
  });
}

/**
 * What is left on disk as compared. The reference writes zeroes below `detect-zeroes` past the end
 * of a file without making it longer, which its check calls corrupt: there ours has to be clean.
 */
export function sameReport(
  theirs: Line,
  ours: Line,
  raw: boolean,
): readonly [theirs: Line, ours: Line] {
  const [status] = ours['check'] as readonly [number];
  const sound = status === 0 && (raw || theirs['content'] === ours['content']);
  return [theirs, ours].map((report) => ({
    ...report,
    map: layersOf(report['map']),
    // Where an image's own bytes were data of another, those are ours and theirs.
    ...(raw ? { map: '', content: '' } : {}),
    ...(sound ? { check: 'sound' } : {}),
  })) as unknown as readonly [Line, Line];
}

/** Whether zeroes are data follows from how a copy was cut into requests, and from host files. */
function layersOf(map: unknown): unknown {
  if (!Array.isArray(map)) return map;
  return joined((map as string[]).map((run) => run.replace(/,"zero".*/, '}')));
}

/** Runs `start+length facts`, those of the same facts made one. */
function joined(runs: readonly string[]): string[] {
  const result: string[] = [];
  let [from, end, facts] = [0, 0, ''];
  const close = (): void => void (end > from && result.push(`${from}+${end - from} ${facts}`));
  for (const run of runs) {
    const [, start = 0, length = 0, its = ''] = /^(\d+)\+(\d+) (.*)$/.exec(run) ?? [];
    if (its !== facts || Number(start) !== end) {
      close();
      [from, facts] = [Number(start), its];
    }
    end = Number(start) + Number(length);
  }
  close();
  return result;
}
