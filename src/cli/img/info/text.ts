// SPDX-License-Identifier: Apache-2.0
// The human text of `img info`. Every name comes from an image and is shown with its control
// bytes escaped.

import { escapeControls, formatSize, formatSizeExact } from '../../../base/index.js';
import type { SnapshotFacts } from '../../../block/index.js';

export interface SnapshotInfo {
  readonly icount?: number;
  readonly 'vm-clock-nsec': number;
  readonly name: string;
  readonly 'date-sec': number;
  readonly 'date-nsec': number;
  readonly 'vm-clock-sec': number;
  readonly id: string;
  readonly 'vm-state-size': number;
}

/** The same of a node's own listing. */
export function snapshotInfo(facts: SnapshotFacts): SnapshotInfo {
  return {
    ...(facts.icount !== undefined && { icount: facts.icount }),
    'vm-clock-nsec': facts.vmClockNanoseconds,
    name: facts.name,
    'date-sec': facts.dateSeconds,
    'date-nsec': facts.dateNanoseconds,
    'vm-clock-sec': facts.vmClockSeconds,
    id: facts.id,
    'vm-state-size': facts.vmStateSize,
  };
}

/** The same of many, each as often as somebody looks at it. */
export function snapshotInfos(all: readonly SnapshotFacts[]): Iterable<SnapshotInfo> {
  return {
    *[Symbol.iterator]() {
      for (const facts of all) yield snapshotInfo(facts);
    },
  };
}

/** Members in the order in which the reference prints them as JSON. */
export interface ImageInfo {
  readonly 'backing-filename-format'?: string;
  /** An image may have 65,536: each is made when it is printed. */
  readonly snapshots?: Iterable<SnapshotInfo>;
  readonly 'virtual-size': number;
  readonly filename: string;
  readonly 'cluster-size'?: number;
  readonly format: string;
  readonly 'actual-size'?: number;
  readonly 'format-specific'?: {
    readonly type: string;
    readonly data: Readonly<Record<string, unknown>>;
  };
  readonly 'full-backing-filename'?: string;
  readonly encrypted?: boolean;
  readonly 'backing-filename'?: string;
  readonly 'dirty-flag'?: boolean;
}

/** Lines, each with its end. */
export function* infoText(info: ImageInfo): Generator<string> {
  const { 'actual-size': actual, 'cluster-size': cluster, snapshots } = info;
  yield `image: ${escapeControls(info.filename)}\n`;
  yield `file format: ${info.format}\n`;
  yield `virtual size: ${formatSizeExact(info['virtual-size'])}\n`;
  yield `disk size: ${actual === undefined ? 'unavailable' : formatSize(actual)}\n`;
  if (info.encrypted === true) yield 'encrypted: yes\n';
  if (cluster !== undefined) yield `cluster_size: ${cluster}\n`;
  if (info['dirty-flag'] === true) yield 'cleanly shut down: no\n';
  for (const line of backingLines(info)) yield `${line}\n`;
  if (snapshots !== undefined) {
    for (const line of snapshotLines(snapshots)) yield `${line}\n`;
  }
  const specific = info['format-specific'];
  if (specific === undefined || Object.keys(specific.data).length === 0) return;
  yield 'Format specific information:\n';
  for (const line of treeLines(specific.data, 1)) yield `${line}\n`;
}

function backingLines(info: ImageInfo): string[] {
  const { 'backing-filename': name, 'full-backing-filename': full } = info;
  if (name === undefined) return [];
  let line = `backing file: ${escapeControls(name)}`;
  if (full === undefined) line += ' (cannot determine actual path)';
  else if (full !== name) line += ` (actual path: ${escapeControls(full)})`;
  const format = info['backing-filename-format'];
  return format === undefined ? [line] : [line, `backing file format: ${escapeControls(format)}`];
}

/** Members by lines, indented by their depth. */
export function* treeLines(tree: object, depth: number): Generator<string> {
  const isList = Array.isArray(tree);
  for (const [key, value] of Object.entries(tree)) {
    const name = isList ? `[${key}]` : key.replaceAll('-', ' ');
    const start = `${'    '.repeat(depth)}${escapeControls(name)}:`;
    if (typeof value === 'object' && value !== null) {
      yield start;
      yield* treeLines(value as object, depth + 1);
    } else yield `${start} ${escapeControls(String(value))}`;
  }
}

const HEADING =
  'ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT';

/** The table of internal snapshots under its heading. */
export function* snapshotLines(snapshots: Iterable<SnapshotInfo>): Generator<string> {
  yield 'Snapshot list:';
  yield HEADING;
  for (const snapshot of snapshots) yield snapshotLine(snapshot);
}

function snapshotLine(snapshot: SnapshotInfo): string {
  const seconds = snapshot['vm-clock-sec'];
  const clock = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
  const milliseconds = Math.floor(snapshot['vm-clock-nsec'] / 1e6);
  const [id, tag] = [escapeControls(snapshot.id), escapeControls(snapshot.name)];
  const name = `${id.padEnd(9)} ${tag.padEnd(16)}`;
  return [
    name,
    ' ',
    formatSize(snapshot['vm-state-size']).padStart(8),
    localDate(snapshot['date-sec']).padStart(20),
    `${clock}.${String(milliseconds).padStart(3, '0')}`.padStart(13),
    String(snapshot.icount ?? '').padStart(11),
  ].join('');
}

function localDate(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':');
  return `${day} ${time}`;
}
