// SPDX-License-Identifier: Apache-2.0
// Commands on the graph other than reopening: the same conversation with a real daemon.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare, graphByNames, hasReference, hello, namesInOneOrder, top,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const resize = (args: Line): string => command('block_resize', args);
const flat = command('query-named-block-nodes', { flat: true });
const shapeOf = command('x-debug-query-block-graph');

/** Name, size and threshold of the nodes with a name. */
function sizes(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const texts = (list as Line[]).map((node) => {
    const size = (node['image'] as Line)['virtual-size'];
    return `${String(node['node-name'])} ${String(size)} ${String(node['write_threshold'])}`;
  });
  return { return: texts.filter((text) => !text.startsWith('#')).toSorted() };
}

/** The order of nodes is nobody's promise. */
function byName(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const text = (node: Line): string => `${String(node['node-name'])} ${'parent' in node}`;
  const order = (a: Line, b: Line): number => (text(a) < text(b) ? -1 : 1);
  return { return: (list as Line[]).toSorted(order) };
}

const nested = command('query-named-block-nodes');

/** The graph by names; of nodes what a header says and how they are open. */
function shape(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return graphByNames(line);
  const texts = (list as Line[]).map((node) => {
    const image = node['image'] as Line;
    return JSON.stringify([
      node['node-name'],
      node['file'],
      node['ro'],
      node['backing_file_depth'],
      image['virtual-size'],
      image['backing-filename'],
      image['backing-filename-format'],
      image['full-backing-filename'],
      (image['backing-image'] as Line | undefined)?.['filename'],
    ]);
  });
  return { return: texts.filter((text) => !text.includes('#block')).toSorted() };
}

/** A reply comes before or after what its command caused; how much is exceeded is chance. */
function once(line: Line): Line | null {
  if (JSON.stringify(line['return']) === '{}') return null;
  return line['event'] === 'BLOCK_WRITE_THRESHOLD' ? { event: line['event'] } : sizes(line);
}

describe.skipIf(!hasReference)('as a real daemon answers', () => {
  it('a node grows, or the refusal says why not', () =>
    compare((directory) => {
      const file = { driver: 'file', filename: join(directory, 'base.qcow2') };
      return [
        hello,
        add(top(directory, { backing: null })),
        add({ driver: 'null-co', 'node-name': 'n', size: 65536 }),
        add({ driver: 'raw', 'node-name': 'w', file: 'n', offset: 0, size: 4096 }),
        add({ ...file, 'node-name': 'f', 'read-only': true }),
        resize({ size: 1024 }),
        resize({ size: 1024, device: 'top' }),
        resize({ size: 1024, 'node-name': 'nope' }),
        resize({ size: -1, 'node-name': 'top' }),
        resize({ size: -1, 'node-name': 'nope' }),
        resize({ size: '1', 'node-name': 'top' }),
        resize({ 'node-name': 'top' }),
        resize({ size: 1000, 'node-name': 'top' }),
        resize({ size: 8388608, 'node-name': 'top' }),
        resize({ size: 8388608, 'node-name': 'top', device: 'top' }),
        resize({ size: 8388609, 'node-name': 'top' }),
        resize({ size: 131072, 'node-name': 'n' }),
        resize({ size: 8192, 'node-name': 'w' }),
        resize({ size: 131072, 'node-name': 'f' }),
        flat,
      ];
    }, sizes));

  it('an empty backing name is none, and what is below a header\'s name is told apart', () =>
    compare((directory) => {
      const filename = join(directory, 'base.qcow2');
      const backing = { driver: 'file', filename };
      return [
        hello,
        add(top(directory, { backing: '' })),
        shapeOf,
        command('blockdev-snapshot-sync', {
          'node-name': 'top',
          'snapshot-file': join(directory, 'new.img'),
          'snapshot-node-name': 'over',
        }),
        shapeOf,
        add(top(directory, { 'node-name': 't2', backing })),
        add(top(directory, { 'node-name': 't3', backing: { driver: 'null-co' } })),
        add(top(directory, { 'node-name': 't4', backing: { driver: 'qcow2', file: 'top' } })),
      ];
    }, shape));

  it('a stream into a filter over a single image has nothing to do', () =>
    compare((directory) => [
      hello,
      add(top(directory, { backing: null })),
      add({ driver: 'blkdebug', 'node-name': 'f', image: 'top' }),
      untilEvent('null j', 'block-stream', { 'job-id': 'j', device: 'f' }),
      shapeOf,
    ], shape));

  it('filters count as layers, and come before what they open themselves', () =>
    compare((directory) => [
      hello,
      add({
        driver: 'throttle',
        'node-name': 'slow',
        'throttle-group': 'g',
        file: top(directory, { 'node-name': 'below', backing: null }),
      }),
      command('object-add', { 'qom-type': 'throttle-group', id: 'g' }),
      add({
        driver: 'throttle',
        'node-name': 'slow',
        'throttle-group': 'g',
        file: top(directory, { 'node-name': 'below' }),
      }),
      add({
        driver: 'blkdebug',
        'node-name': 'debug',
        image: { driver: 'copy-on-read', 'node-name': 'cor', file: 'slow' },
      }),
      add({
        driver: 'blkverify',
        'node-name': 'verify',
        raw: { driver: 'null-co', 'node-name': 'n0' },
        test: { driver: 'null-co', 'node-name': 'n1' },
      }),
      nested,
    ], namesInOneOrder));

  it('a file and a raw image grow and shrink', () =>
    compare((directory) => {
      const filename = join(directory, 'base.qcow2');
      return [
        hello,
        add({ driver: 'file', 'node-name': 'f', filename }),
        add({ driver: 'raw', 'node-name': 'r', file: 'f' }),
        resize({ size: 8388608, 'node-name': 'f' }),
        resize({ size: 8388608, 'node-name': 'r' }),
        flat,
        resize({ size: 1024, 'node-name': 'r' }),
        resize({ size: 1025, 'node-name': 'f' }),
        flat,
        resize({ size: 0, 'node-name': 'r' }),
        flat,
      ];
    }, sizes));

  it('an overlay and a window keep their node from being resized', () =>
    compare((directory) => [
      hello,
      add({
        driver: 'qcow2',
        'node-name': 'base',
        file: { driver: 'file', filename: join(directory, 'base.qcow2') },
      }),
      add(top(directory, { backing: 'base' })),
      resize({ size: 8388608, 'node-name': 'base' }),
      resize({ size: 8388608, 'node-name': 'base', device: 'base' }),
      resize({ size: 8388608, 'node-name': 'top' }),
      flat,
    ], sizes));

  it('a write threshold is set, seen and taken back', () =>
    compare((directory) => {
      const set = (name: string, threshold: unknown): string =>
        command('block-set-write-threshold', { 'node-name': name, 'write-threshold': threshold });
      return [
        hello,
        add(top(directory)),
        set('nope', 1),
        set('top', 4096),
        flat,
        set('top', 8192),
        flat,
        set('top', 0),
        flat,
      ];
    }, sizes));

  it('there are no devices, and nodes nobody wrote to have no numbers', () =>
    compare((directory) => [
      hello,
      add(top(directory)),
      add({ driver: 'null-co', 'node-name': 'n' }),
      add({ driver: 'raw', 'node-name': 'r', file: 'n' }),
      command('query-block'),
      command('query-block', { x: 1 }),
      command('query-blockstats'),
      command('query-blockstats', { 'query-nodes': false }),
      command('query-blockstats', { 'query-nodes': true }),
    ], byName));

  it('an overlay is put on a node, or the refusal says why not', () =>
    compare((directory) => {
      const path = (name: string): string => join(directory, name);
      const snapshot = (node: string, overlay: string): string =>
        command('blockdev-snapshot', { node, overlay });
      const plain = { driver: 'null-co', size: 4194304 };
      return [
        hello,
        add({ ...plain, 'node-name': 'n' }),
        add({ ...plain, 'node-name': 'm' }),
        add({ driver: 'raw', 'node-name': 'r', file: 'm' }),
        add(top(directory, { backing: null })),
        add({
          driver: 'qcow2',
          'node-name': 'o',
          file: { driver: 'file', filename: path('base.qcow2') },
        }),
        snapshot('nope', 'o'),
        snapshot('n', 'nope'),
        snapshot('top', 'top'),
        snapshot('top', 'n'),
        snapshot('top', 'r'),
        snapshot('m', 'top'),
        command('x-debug-query-block-graph'),
        snapshot('top', 'o'),
        snapshot('top', 'o'),
        snapshot('n', 'o'),
        snapshot('n', 'top'),
        flat,
        command('x-debug-query-block-graph'),
        command('blockdev-del', { 'node-name': 'top' }),
        command('blockdev-del', { 'node-name': 'o' }),
      ];
    }, shape));

  it('a snapshot into a file keeps the chain, on disk as in the graph', () =>
    compare((directory) => {
      const path = (name: string): string => join(directory, name);
      const sync = (args: Line): string => command('blockdev-snapshot-sync', args);
      const into = (node: string, file: string, name: string): Line => ({
        'node-name': node,
        'snapshot-file': path(file),
        'snapshot-node-name': name,
      });
      return [
        hello,
        add(top(directory)),
        add({ driver: 'raw', 'node-name': 'user', file: 'top' }),
        sync({}),
        sync({ 'snapshot-file': path('new.img') }),
        sync({ device: 'top', 'snapshot-file': path('new.img') }),
        sync({ 'node-name': 'top', 'snapshot-file': path('new.img') }),
        sync(into('nope', 'new.img', 's')),
        sync(into('top', 'new.img', 'top')),
        sync({ ...into('top', 'new.img', 's'), mode: 'none' }),
        sync({ ...into('top', 'new.img', 's'), format: 'nope' }),
        sync({ ...into('top', 'new.img', 's'), format: 'raw' }),
        sync({ ...into('top', 'new.img', 's'), mode: 'existing' }),
        sync(into('top', 'no/new.img', 's')),
        sync(into('top', 'new.img', '1 s')),
        sync(into('top', 'top.qcow2', 's')),
        sync(into('top', 'new.img', 's')),
        nested,
        command('x-debug-query-block-graph'),
        sync(into('top', 'new2.img', 's2')),
        sync({ ...into('s', 'new.img', 's2'), mode: 'existing' }),
        command('blockdev-del', { 'node-name': 's' }),
        command('blockdev-del', { 'node-name': 'user' }),
        command('blockdev-del', { 'node-name': 'top' }),
        flat,
      ];
    }, shape));

  it('the backing link of a header is rewritten, of a read-only image too', () =>
    compare((directory) => {
      const change = (device: string, image: string, file: string): string =>
        command('change-backing-file', {
          device,
          'image-node-name': image,
          'backing-file': file,
        });
      const readOnly = top(directory, { backing: 'base', 'read-only': true });
      return [
        hello,
        add({
          driver: 'qcow2',
          'node-name': 'base',
          'read-only': true,
          file: { driver: 'file', filename: join(directory, 'base.qcow2') },
        }),
        add(top(directory, { backing: 'base' })),
        add({ driver: 'null-co', 'node-name': 'n' }),
        add({ driver: 'raw', 'node-name': 'r', file: 'top' }),
        change('nope', 'top', 'x'),
        change('r', 'nope', 'x'),
        change('r', 'r', 'x'),
        change('r', 'base', 'x'),
        change('top', 'top', 'x'),
        change('n', 'top', 'x'),
        change('r', 'top', 'x'),
        command('blockdev-del', { 'node-name': 'r' }),
        change('top', 'top', './base.qcow2'),
        nested,
        command('blockdev-reopen', { options: [readOnly] }),
        change('top', 'top', join(directory, 'base.qcow2')),
        nested,
      ];
    }, shape));

  it('a stream into a read-only node makes it writable for its time', () =>
    compare((directory) => [
      hello,
      add(top(directory, { 'read-only': true })),
      { send: command('block-stream', { 'job-id': 'j', device: 'top' }), until: 'null j' },
      nested,
      command('x-debug-query-block-graph'),
    ], (line) => ('return' in line && !Array.isArray(line['return']) ? null : shape(line))));

  it('a node that is written up to a threshold says so once', () =>
    compare((directory) => [
      hello,
      add(top(directory, { backing: null })),
      add({ driver: 'null-co', 'node-name': 'zero', size: 1048576, 'read-zeroes': true }),
      add({ driver: 'null-co', 'node-name': 'sink', size: 1048576 }),
      command('block-set-write-threshold', { 'node-name': 'sink', 'write-threshold': 1 }),
      {
        send: command('blockdev-backup', {
          'job-id': 'j',
          device: 'zero',
          target: 'sink',
          sync: 'full',
        }),
        until: 'null j',
      },
      flat,
    ], once));
});
