// SPDX-License-Identifier: Apache-2.0
// Plays one conversation to our server and to a real qemu-storage-daemon and compares what is said.
//
// Filters leave out what is chance (sizes on disk, progress at a moment) and nothing else.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect } from 'vitest';

import { startOwnDaemon } from './own-daemon.js';
import { peer } from './peers.js';
import { startRealDaemon } from './real-daemon.js';
import { command, playAll } from './transcript.js';
import type { Line, Step } from './transcript.js';

const daemon = peer('qemu-storage-daemon');
const img = peer('qemu-img');
const io = peer('qemu-io');
export const hello = command('qmp_capabilities');

/** False where the real tools are missing: the comparison is skipped. */
export const hasReference = daemon !== null && img !== null && io !== null;

const IMAGES = ['base.qcow2', 'top.qcow2', 'over.qcow2', 'copy.qcow2'];
let made: string | null = null;
afterAll(() => {
  if (made !== null) rmSync(made, { recursive: true });
  made = null;
});

/** What every comparison starts with, made once in a test file: programs cost more than copies. */
function templates(): string {
  if (made !== null) return made;
  const folder = mkdtempSync(join(tmpdir(), 'transcript-images-'));
  made = folder;
  const path = (name: string): string => join(folder, name);
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', path('base.qcow2'), '4M']);
  execFileSync(io as string, ['-c', 'write 0 1M', path('base.qcow2')]);
  const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', ...backing, path('top.qcow2')]);
  const onTop = ['-b', 'top.qcow2', '-F', 'qcow2'];
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', ...onTop, path('over.qcow2')]);
  execFileSync(io as string, ['-c', 'write 2M 512k', path('over.qcow2')]);
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', path('copy.qcow2'), '4M']);
  return folder;
}

/**
 * Fresh images in the directory: base.qcow2 (4 MiB, the first MiB written) below top.qcow2 below
 * over.qcow2 (half a MiB written at 2 MiB), and the empty copy.qcow2.
 */
function makeChain(directory: string): void {
  for (const name of IMAGES) {
    rmSync(join(directory, name), { force: true });
    copyFileSync(join(templates(), name), join(directory, name));
  }
  for (const name of ['new.img', 'new.qcow2']) rmSync(join(directory, name), { force: true });
}

type Filter = (line: Line) => Line | null;
type Record = Awaited<ReturnType<typeof playAll>>;

/** Without what versions after the reference's say besides. */
function withoutLater(line: Line): Line {
  const text = JSON.stringify(line, (key, value: unknown) =>
    key === 'actively-synced' ? undefined : value,
  );
  return JSON.parse(text) as Line;
}

function filtered(record: Record, filter: Filter): unknown {
  return record.map(({ step, said }) => ({
    step,
    said: said.map(withoutLater).map(filter).filter((line) => line !== null),
  }));
}

/** How much a file takes differs between two files of the same content. */
export function withoutSizes(line: Line): Line {
  return JSON.parse(
    JSON.stringify(line, (key, value: unknown) => {
      const isFile = (value as { format?: unknown } | null)?.format === 'file';
      if (isFile) return { ...(value as object), 'virtual-size': 0, 'actual-size': 0 };
      return key === 'actual-size' ? 0 : value;
    }),
  ) as Line;
}

/** Edges by names instead of ids, in one order. */
export function graphByNames(line: Line): Line {
  const graph = line['return'] as { nodes?: Line[]; edges?: Line[] } | undefined;
  if (graph?.nodes === undefined || graph.edges === undefined) return line;
  const names = new Map(graph.nodes.map(({ id, name, type }) => [id, [type, name].join(' ')]));
  const lists = ['perm', 'shared-perm'] as const;
  const edges = graph.edges.map((edge) => {
    const masks = lists.map((list) => (edge[list] as string[]).toSorted().join('+'));
    const ends = [names.get(edge['parent']), edge['name'], names.get(edge['child'])];
    return [...ends, ...masks].join(', ');
  });
  return { return: { edges: edges.toSorted() } };
}

/** Members of `json:` names come in the order of a hash table there. */
export function namesInOneOrder(line: Line): Line {
  const text = JSON.stringify(withoutSizes(graphByNames(line)), (key, value: unknown) => {
    if (key === 'actual-size') return undefined;
    const isJsonName = typeof value === 'string' && value.startsWith('json:');
    return isJsonName ? { json: JSON.parse(value.slice('json:'.length)) as unknown } : value;
  });
  return JSON.parse(text) as Line;
}

/** Whether a verb's effect comes before or after its reply depends on what the job is doing. */
export function withoutReplies(line: Line): Line | null {
  return 'return' in line ? null : line;
}

export function withoutOffset(line: Line): Line {
  return JSON.parse(
    JSON.stringify(line, (key, value: unknown) => (key === 'offset' ? 0 : value)),
  ) as Line;
}

export function isDrainPause(line: Line): boolean {
  const data = line['data'] as { readonly status?: string } | undefined;
  return data?.status === 'paused' || data?.status === 'running';
}

/**
 * Plays `steps` in a fresh directory (`makeSteps` is told which) to both and expects the same;
 * `prepare` puts files of its own there, for each side anew.
 */
export async function compare(
  makeSteps: (directory: string) => readonly Step[],
  filter: Filter = (line) => line,
  prepare: (directory: string) => void = () => undefined,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'transcripts-'));
  try {
    const makeFiles = (): void => {
      makeChain(directory);
      prepare(directory);
    };
    await comparedIn({ directory, makeFiles }, makeSteps(directory), filter);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function comparedIn(
  { directory, makeFiles }: { readonly directory: string; readonly makeFiles: () => void },
  steps: readonly Step[],
  filter: Filter,
): Promise<void> {
  makeFiles();
  const theirs = await (async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    return await playAll(real.socket, steps);
  })();
  makeFiles();
  await using own = await startOwnDaemon(directory);
  void own.engine.quitRequested.then(() => own.server.close());
  const ours = await playAll(await own.connect(), steps);
  expect(filtered(ours, filter)).toEqual(filtered(theirs, filter));
}


export function top(directory: string, extra: Line = {}): Line {
  return {
    driver: 'qcow2',
    'node-name': 'top',
    file: { driver: 'file', filename: join(directory, 'top.qcow2') },
    ...extra,
  };
}

/** base, top, over (the active layer) and copy, all open by these names. */
export function openAll(directory: string): string[] {
  const add = (name: string, backing: string | null): string =>
    command('blockdev-add', {
      driver: 'qcow2',
      'node-name': name,
      ...(backing === null ? {} : { backing }),
      file: {
        driver: 'file',
        'node-name': `${name}-file`,
        filename: join(directory, `${name}.qcow2`),
      },
    });
  return [add('base', null), add('top', 'base'), add('over', 'top'), add('copy', null)];
}
