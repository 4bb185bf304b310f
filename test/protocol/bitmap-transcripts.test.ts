// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps over the life of their images, compared with a real daemon line by line.
//
// Guests are jobs that write into the node. Left out are the names of nodes without one, and an
// image that grows again after it was cut: what it lost is dirty here, and clean there.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const nodes = command('query-named-block-nodes', { flat: true });
const on = (node: string, name: string): Line => ({ node, name });
const P = { persistent: true };

function bitmap(node: string, name: string, more: Line = {}): string {
  return command('block-dirty-bitmap-add', { node, name, ...more });
}

function act(what: string, node: string, name: string): string {
  return command(`block-dirty-bitmap-${what}`, on(node, name));
}

function sha(node: string, name: string): string {
  return command('x-debug-block-dirty-bitmap-sha256', on(node, name));
}

function merge(node: string, target: string, bitmaps: readonly (string | Line)[]): string {
  return command('block-dirty-bitmap-merge', { node, target, bitmaps });
}

function transaction(...actions: readonly (readonly [type: string, data: Line])[]): string {
  return command('transaction', { actions: actions.map(([type, data]) => ({ type, data })) });
}

function del(name: string): string {
  return command('blockdev-del', { 'node-name': name });
}

/** Bitmaps of nodes that have a name, and what the format lists of them. */
function bitmapsOnly(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const named = (list as Line[]).filter((node) => !String(node['node-name']).startsWith('#'));
  return {
    return: named.map((node) => {
      const image = node['image'] as Line;
      const specific = image['format-specific'] as { data?: Line } | undefined;
      return {
        name: node['node-name'],
        ro: node['ro'],
        bitmaps: node['dirty-bitmaps'] ?? [],
        stored: specific?.data?.['bitmaps'] ?? [],
      };
    }),
  };
}

class Scene {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  options(node: string, more: Line = {}, file = `${node}.qcow2`): Line {
    const filename = join(this.#directory, file);
    return {
      driver: 'qcow2',
      'node-name': node,
      file: { driver: 'file', filename },
      ...(node === 'copy' || node === 'base' ? {} : { backing: null }),
      ...more,
    };
  }

  add(node: string, more: Line = {}): string {
    return command('blockdev-add', this.options(node, more));
  }

  source(): string {
    const options = this.options('source', { 'read-only': true }, 'over.qcow2');
    return command('blockdev-add', options);
  }

  reopen(node: string, more: Line = {}): string {
    return command('blockdev-reopen', { options: [this.options(node, more)] });
  }

  /** Half a MiB at 2 MiB, all that the image over has, is written into a node. */
  fill(target: string): Step[] {
    const job = { 'job-id': 'fill', device: 'source', target, sync: 'top' };
    return [untilEvent('null fill', 'blockdev-backup', job)];
  }
}

describe.skipIf(!hasReference)('persistent bitmaps, as a real daemon has them', () => {
  it('are kept, refused and removed', () =>
    compare((directory) => {
      const scene = new Scene(directory);
      return [
        hello,
        scene.add('copy'),
        scene.source(),
        bitmap('copy', 'a', P),
        bitmap('copy', 'b', { ...P, granularity: 512, disabled: true }),
        bitmap('copy', 'c', { granularity: 4096 }),
        bitmap('copy', 'a', P),
        bitmap('copy', 'a'),
        bitmap('copy', '', P),
        bitmap('copy', 'n'.repeat(1024), P),
        bitmap('copy', 'n'.repeat(1024)),
        bitmap('copy', 'g', { ...P, granularity: 1000 }),
        bitmap('copy', 'g', { ...P, granularity: 256 }),
        nodes,
        ...scene.fill('copy'),
        nodes,
        sha('copy', 'a'),
        merge('copy', 'b', ['a', 'c']),
        sha('copy', 'b'),
        act('disable', 'copy', 'a'),
        act('enable', 'copy', 'b'),
        del('copy'),
        scene.add('copy', { 'read-only': true }),
        nodes,
        sha('copy', 'a'),
        sha('copy', 'b'),
        ...['clear', 'enable', 'disable', 'remove'].map((what) => act(what, 'copy', 'a')),
        merge('copy', 'a', ['b']),
        bitmap('copy', 'ro', P),
        bitmap('copy', 'memory'),
        nodes,
        scene.reopen('copy'),
        nodes,
        act('remove', 'copy', 'a'),
        act('clear', 'copy', 'b'),
        nodes,
        scene.reopen('copy', { 'read-only': true }),
        nodes,
        scene.reopen('copy', { 'read-only': false }),
        act('remove', 'copy', 'b'),
        act('remove', 'copy', 'b'),
        nodes,
        del('copy'),
        scene.add('copy'),
        nodes,
      ];
    }, bitmapsOnly));

  it('are part of transactions that go through or are undone', () =>
    compare((directory) => {
      const scene = new Scene(directory);
      const add = (name: string): [string, Line] => [
        'block-dirty-bitmap-add',
        { ...on('copy', name), ...P },
      ];
      const one = (what: string, name: string): [string, Line] => [
        `block-dirty-bitmap-${what}`,
        on('copy', name),
      ];
      const abort: [string, Line] = ['abort', {}];
      return [
        hello,
        scene.add('copy'),
        scene.source(),
        transaction(add('a'), add('b')),
        ...scene.fill('copy'),
        del('copy'),
        scene.add('copy'),
        transaction(one('remove', 'a'), abort),
        nodes,
        transaction(one('clear', 'b'), one('remove', 'a'), one('remove', 'b'), abort),
        transaction(add('c'), abort),
        nodes,
        del('copy'),
        scene.add('copy'),
        nodes,
        sha('copy', 'a'),
        sha('copy', 'b'),
        transaction(one('remove', 'a'), add('a')),
        transaction(add('c'), one('remove', 'a')),
        nodes,
        del('copy'),
        scene.add('copy'),
        nodes,
      ];
    }, bitmapsOnly));

  it('follow a resize, snapshots and where they cannot be', () =>
    compare((directory) => {
      const scene = new Scene(directory);
      const resize = (node: string, size: number): string =>
        command('block_resize', { 'node-name': node, size });
      return [
        hello,
        scene.add('copy'),
        scene.source(),
        scene.add('top'),
        bitmap('copy', 'a', P),
        ...scene.fill('copy'),
        del('copy'),
        scene.add('copy'),
        resize('copy', 8_388_608),
        nodes,
        resize('copy', 524_288),
        sha('copy', 'a'),
        nodes,
        command('blockdev-snapshot', { node: 'copy', overlay: 'top' }),
        nodes,
        act('clear', 'copy', 'a'),
        bitmap('top', 'o', P),
        nodes,
        command('blockdev-add', { driver: 'null-co', 'node-name': 'nul', size: 65_536 }),
        bitmap('nul', 'x', P),
        command('blockdev-add', { driver: 'raw', 'node-name': 'raw', file: 'source' }),
        bitmap('raw', 'x', P),
        del('top'),
        nodes,
      ];
    }, bitmapsOnly));

  it('serve backups and are busy meanwhile', () =>
    compare((directory) => {
      const scene = new Scene(directory);
      const backup = {
        'job-id': 'j',
        device: 'copy',
        target: 'top',
        sync: 'incremental',
        bitmap: 'a',
        'auto-dismiss': false,
        'auto-finalize': false,
      };
      return [
        hello,
        scene.add('copy'),
        scene.source(),
        scene.add('top'),
        bitmap('copy', 'a', P),
        ...scene.fill('copy'),
        del('copy'),
        scene.add('copy'),
        untilEvent('pending j', 'blockdev-backup', backup),
        nodes,
        act('remove', 'copy', 'a'),
        act('clear', 'copy', 'a'),
        command('block_resize', { 'node-name': 'copy', size: 8_388_608 }),
        untilEvent('concluded j', 'job-finalize', { id: 'j' }),
        command('job-dismiss', { id: 'j' }),
        nodes,
        del('copy'),
        scene.add('copy'),
        nodes,
      ];
    }, bitmapsOnly));
});
