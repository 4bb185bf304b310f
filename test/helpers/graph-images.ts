// SPDX-License-Identifier: Apache-2.0
// The images that random graph commands play with, made once by the real tools and copied into a
// folder for each player; and what is left in such a folder afterwards, for comparison.
//
// Backing names are absolute (of relative ones, what a node is called differs on purpose). All
// folders have names of one length, so that a copy's headers get the names of its own folder.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { peer } from './peers.js';
import type { Line } from './transcript.js';

const CREATED: readonly (readonly string[])[] = [
  ['-f', 'raw', 'plain.raw', '1M'],
  ['-f', 'raw', 'odd.raw', '197120'],
  ['-f', 'qcow2', 'base.qcow2', '1M'],
  ['-f', 'qcow2', '-b', 'DIR/base.qcow2', '-F', 'qcow2', 'mid.qcow2', '1M'],
  ['-f', 'qcow2', '-o', 'cluster_size=4k', '-b', 'DIR/mid.qcow2', '-F', 'qcow2', 'top.qcow2', '2M'],
  ['-f', 'qcow2', '-b', 'DIR/top.qcow2', '-F', 'qcow2', 'leaf.qcow2', '2M'],
  ['-f', 'qcow2', '-o', 'compat=0.10', '-b', 'DIR/plain.raw', '-F', 'raw', 'v2.qcow2', '1M'],
  ['-f', 'qcow2', '-o', 'lazy_refcounts=on,compat=1.1', 'lazy.qcow2', '1M'],
  ['-f', 'qcow2', '-o', 'cluster_size=512', 'spare.qcow2', '1M'],
  ['-f', 'qcow2', 'small.qcow2', '512k'],
  ['-f', 'qcow2', '-u', '-b', 'DIR/gone.qcow2', '-F', 'qcow2', 'orphan.qcow2', '1M'],
];

const WRITTEN: readonly (readonly [file: string, ...commands: string[]])[] = [
  ['plain.raw', 'write -P 1 0 300k', 'write -P 2 700k 1000'],
  ['odd.raw', 'write -P 3 0 190k'],
  ['base.qcow2', 'write -P 4 0 256k', 'write -P 5 640k 64k'],
  ['mid.qcow2', 'write -P 6 64k 64k', 'write -z 192k 64k'],
  ['top.qcow2', 'write -P 7 1000k 200k', 'write -z 640k 8k'],
  ['v2.qcow2', 'write -P 8 128k 64k'],
  ['lazy.qcow2', 'write -P 9 0 100k'],
  ['small.qcow2', 'write -c -P 10 64k 64k'],
];

export const QCOW2_IMAGES = CREATED.map((words) => words.at(-2) as string)
  .filter((name) => name.endsWith('.qcow2'));
export const RAW_IMAGES = ['plain.raw', 'odd.raw'] as const;

let template: string | null = null;

/** A new folder below the one for temporary files; its name has always the same length. */
export function newFolder(): string {
  return mkdtempSync(join(tmpdir(), 'graph-contest-'));
}

/** Copies the images into `directory`, which is of `newFolder`. */
export function copyImages(directory: string): void {
  template ??= makeTemplate();
  for (const name of imagesIn(template)) {
    const bytes = readFileSync(join(template, name), 'latin1');
    writeFileSync(join(directory, name), bytes.replaceAll(template, directory), 'latin1');
  }
}

/** Removes what `copyImages` keeps between calls. */
export function forgetImages(): void {
  if (template !== null) rmSync(template, { recursive: true, force: true });
  template = null;
}

function makeTemplate(): string {
  const directory = newFolder();
  const options = { cwd: directory, stdio: 'pipe' } as const;
  for (const words of CREATED) {
    const placed = words.map((word) => word.replace('DIR', directory));
    execFileSync(peer('qemu-img') as string, ['create', '-q', ...placed], options);
  }
  for (const [file, ...commands] of WRITTEN) {
    const words = commands.flatMap((command) => ['-c', command]);
    const format = file.endsWith('.raw') ? 'raw' : 'qcow2';
    execFileSync(peer('qemu-io') as string, ['-f', format, ...words, file], options);
  }
  return directory;
}

/** Names of the images in a folder. */
export function imagesIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => /\.(raw|qcow2)$/.test(name)).sort();
}

function sha(path: string, directory = ''): string {
  const bytes = readFileSync(path, 'latin1');
  const placed = directory === '' ? bytes : bytes.replaceAll(directory, 'DIR');
  return createHash('sha256').update(placed, 'latin1').digest('hex');
}

/** Files of the same bytes, but for the names of their folders, need no tool to look at them. */
export function sameBytes(name: string, left: string, right: string): boolean {
  return sha(join(left, name), left) === sha(join(right, name), right);
}

function tool(directory: string, words: readonly string[]): { status: number; out: string } {
  const run = spawnSync(peer('qemu-img') as string, words, { cwd: directory, encoding: 'utf8' });
  return { status: run.status ?? -1, out: (run.stdout + run.stderr).replaceAll(directory, 'DIR') };
}

const NOT_COMPARED = ['actual-size', 'image-end-offset', 'allocated-clusters',
  'fragmented-clusters', 'compressed-clusters', 'total-clusters', 'offset', 'compressed',
  'dirty-flag'];

function parsed(text: string): unknown {
  try {
    return JSON.parse(text, (key, value: unknown) => {
      if (key === 'present') return undefined;
      return NOT_COMPARED.includes(key) ? undefined : canonical(value);
    });
  } catch {
    // Which of the things that are wrong with a chain is told depends on the order of opening.
    return 'refused';
  }
}

/** Members of a `json:` name in one order, that of the reference is chance. */
export function canonical(value: unknown): unknown {
  if (typeof value !== 'string' || !value.startsWith('json:')) return value;
  return `json:${inOrder(JSON.parse(value.slice('json:'.length)))}`;
}

/** JSON with members in one order. */
export function inOrder(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => {
    if (each === null || typeof each !== 'object' || Array.isArray(each)) return each;
    return Object.fromEntries(Object.entries(each).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** What the real tools say of an image: its check, headers of its chain, map and content. */
export function reportOn(directory: string, name: string): Line {
  const format = name.endsWith('.raw') ? 'raw' : 'qcow2';
  const flat = join(directory, `${name}.flat`);
  const check = format === 'raw' ? { status: 0, out: '{}' }
    : tool(directory, ['check', '--output=json', name]);
  const info = tool(directory, ['info', '--backing-chain', '--output=json', name]);
  const map = tool(directory, ['map', '-f', format, '--output=json', name]);
  const convert = tool(directory, ['convert', '-f', format, '-O', 'raw', name, flat]);
  const content = convert.status === 0 ? sha(flat) : 'refused';
  rmSync(flat, { force: true });
  return {
    check: [check.status, parsed(check.out)],
    info: parsed(info.out),
    map: format === 'raw' ? null : merged(parsed(map.out)),
    content,
  };
}

/** Where one entry ends and the next begins is chance (it follows host offsets). */
function merged(map: unknown): unknown {
  if (!Array.isArray(map)) return map;
  const runs: { start: number; length: number; key: string }[] = [];
  for (const { start, length, ...facts } of map as { start: number; length: number }[]) {
    const key = JSON.stringify(facts);
    const last = runs.at(-1);
    if (last !== undefined && last.key === key) last.length += length;
    else runs.push({ start, length, key });
  }
  return runs.map(({ start, length, key }) => `${start}+${length} ${key}`);
}
