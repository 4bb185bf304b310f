// SPDX-License-Identifier: Apache-2.0
// blockdev-reopen: the same conversation with a real daemon, with the graph and its permissions
// after every change.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, graphByNames, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const reopen = (...options: readonly Line[]): string => command('blockdev-reopen', { options });
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const graph = command('x-debug-query-block-graph');
const nodes = command('query-named-block-nodes', { flat: true });

const CACHE = { writeback: true, direct: true, 'no-flush': true };

/**
 * Given by hand, the backing file that a header names relatively counts as another one there, and
 * as the same one here.
 */
function shortName(file: string): string {
  if (!file.startsWith('json:')) return file;
  const { backing, file: below } = JSON.parse(file.slice('json:'.length)) as Record<string, Line>;
  const overBase = JSON.stringify(backing)?.includes('/base.qcow2"') === true;
  const name = String(below?.['filename']);
  return overBase && name.endsWith('/top.qcow2') ? name : file;
}

/** Image facts of a node are compared elsewhere; here its flags are. */
function flags(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return graphByNames(line);
  const wanted = ['node-name', 'file', 'ro', 'detect_zeroes', 'cache', 'backing_file_depth'];
  const texts = (list as Line[]).map((each) => {
    const node = { ...each, file: shortName(String(each['file'])) };
    const texts = Object.entries(node)
      .filter(([key]) => wanted.includes(key))
      .map(([key, value]) => `${key} ${JSON.stringify(value, Object.keys(CACHE))}`);
    return texts.toSorted().join(', ');
  });
  return { return: texts.toSorted() };
}

function parts(directory: string): {
  file: (name: string, extra?: Line) => Line;
  qcow2: (name: string, extra?: Line) => Line;
} {
  const file = (name: string, extra: Line = {}): Line => ({
    driver: 'file',
    filename: join(directory, `${name}.qcow2`),
    ...extra,
  });
  return {
    file,
    qcow2: (name, extra = {}) => ({
      driver: 'qcow2',
      'node-name': name,
      file: file(name),
      ...extra,
    }),
  };
}

describe.skipIf(!hasReference)('a reopen, as a real daemon does it', () => {
  it('selects by node name and refuses what cannot change', () =>
    compare((directory) => {
      const { file, qcow2 } = parts(directory);
      const plain = { driver: 'null-co', 'node-name': 'n', size: 65536 };
      return [
        hello,
        add(qcow2('top')),
        reopen({ driver: 'qcow2', file: file('top') }),
        reopen(qcow2('nope')),
        reopen({ ...qcow2('top'), driver: 'raw' }),
        reopen({ ...qcow2('top'), driver: 'null-co' }),
        reopen({ driver: 'null-co', 'node-name': 'top' }),
        reopen(qcow2('top', { backing: null, file: file('top', { 'node-name': 'x' }) })),
        reopen(qcow2('top', { backing: null, file: file('base') })),
        reopen(qcow2('top', { backing: null, file: null })),
        reopen(qcow2('top', { backing: null, 'detect-zeroes': 'unmap' })),
        reopen(qcow2('top', { backing: null, 'no-such': 1 })),
        add({ ...plain, 'read-zeroes': true }),
        reopen(plain),
        reopen({ ...plain, size: 1024, 'read-zeroes': true }),
        reopen({ ...plain, 'read-zeroes': true, 'latency-ns': 5 }),
        reopen({ ...plain, 'read-zeroes': true, 'read-only': true }),
        nodes,
        reopen({ ...plain, 'read-zeroes': true }),
        nodes,
        reopen(qcow2('top', { backing: null }), { ...plain, size: 512, 'read-zeroes': true }),
        graph,
        command('blockdev-reopen', { options: {} }),
        command('blockdev-reopen'),
      ];
    }, flags));

  it('wants to be told the backing file, and takes, swaps and drops it', () =>
    compare((directory) => {
      const { file, qcow2 } = parts(directory);
      const base = qcow2('base', { 'read-only': true });
      return [
        hello,
        add(base),
        add(qcow2('top', { backing: 'base' })),
        reopen(qcow2('top')),
        reopen(qcow2('top', { backing: 'nope' })),
        reopen(qcow2('top', { backing: 'top' })),
        reopen(qcow2('base', { backing: 'top' })),
        reopen(qcow2('top', { backing: qcow2('base') })),
        graph,
        reopen(qcow2('top', { backing: null })),
        graph,
        reopen(qcow2('top')),
        reopen(qcow2('top', { backing: { driver: 'qcow2', file: file('base') } })),
        reopen(qcow2('top', { backing: 'base' })),
        graph,
        nodes,
        del('base'),
        add({ driver: 'null-co', 'node-name': 'n', size: 4194304 }),
        reopen(qcow2('top', { backing: 'n' })),
        graph,
        del('base'),
        del('n'),
        del('top'),
        del('n'),
      ];
    }, flags));

  it('reopens what was opened for the node with it', () =>
    compare((directory) => {
      const { file, qcow2 } = parts(directory);
      const inline = { driver: 'qcow2', file: file('base'), 'node-name': 'base' };
      return [
        hello,
        add(qcow2('top', { backing: inline })),
        reopen(qcow2('top', { backing: 'base', 'read-only': true })),
        nodes,
        graph,
        reopen(qcow2('top', { backing: { ...inline, 'read-only': false } })),
        nodes,
        graph,
        reopen(qcow2('top', { backing: 'base' })),
        nodes,
        reopen(qcow2('top', { backing: inline, cache: { 'no-flush': true } })),
        nodes,
        reopen(qcow2('top', { backing: { ...inline, 'node-name': 'zz' } })),
        reopen(qcow2('top', { backing: { driver: 'raw', file: file('base') } })),
        reopen(qcow2('top', { backing: { ...inline, file: file('top') } })),
        nodes,
        reopen(qcow2('top', { backing: null })),
        graph,
        reopen(qcow2('top', { backing: 'base' })),
        reopen(qcow2('top', { backing: inline })),
        del('top'),
      ];
    }, flags));

  it('leaves a chain alone on which a job relies', () =>
    compare((directory) => {
      const { qcow2 } = parts(directory);
      const overlay = (extra: Line): Line => qcow2('top', { backing: 'base', ...extra });
      return [
        hello,
        add(qcow2('base', { 'read-only': true })),
        add(overlay({})),
        add({ driver: 'null-co', 'node-name': 'n', size: 4194304 }),
        command('block-stream', { 'job-id': 'j', device: 'top', speed: 1 }),
        command('block_resize', { 'node-name': 'top', size: 8388608 }),
        reopen(overlay({ backing: null })),
        reopen(overlay({ backing: 'n' })),
      ];
    }, (line) => ('event' in line ? null : flags(line))));

  it('returns what is not given to its default', () =>
    compare((directory) => {
      const { file } = parts(directory);
      const f = file('base', { 'node-name': 'f' });
      const q = { driver: 'qcow2', 'node-name': 'q', file: 'f' };
      return [
        hello,
        add(f),
        add(q),
        reopen({ ...q, discard: 'unmap', 'detect-zeroes': 'unmap', cache: { 'no-flush': true } }),
        nodes,
        reopen({ ...q, 'lazy-refcounts': true }),
        nodes,
        reopen({ ...q, 'l2-cache-size': 65536, 'read-only': true }),
        nodes,
        reopen(q),
        nodes,
        reopen({ ...f, locking: 'off' }),
        reopen({ ...f, aio: 'threads' }),
        reopen({ ...f, filename: 'x' }),
        reopen({ driver: 'raw', 'node-name': 'f', file: 'q' }),
      ];
    }, flags));

  it('goes read-only and back only when nobody minds, all nodes of a list together', () =>
    compare((directory) => {
      const { file } = parts(directory);
      const f = file('base', { 'node-name': 'f' });
      const q = { driver: 'qcow2', 'node-name': 'q', file: 'f' };
      const readOnly = (options: Line): Line => ({ ...options, 'read-only': true });
      return [
        hello,
        add(f),
        add(q),
        reopen(readOnly(f)),
        reopen(readOnly(q)),
        graph,
        reopen(readOnly(f)),
        reopen(q),
        nodes,
        reopen(q, f),
        graph,
        reopen(readOnly(q), f),
        reopen(q, readOnly(f)),
        nodes,
        reopen(q, { ...f, filename: 'zz' }),
        nodes,
        graph,
        reopen(readOnly(f), readOnly(q)),
        nodes,
        graph,
        reopen(f, q),
        reopen(f, f),
        nodes,
        del('q'),
        del('f'),
      ];
    }, flags));

  it('moves children in the order of the list, and makes no cycle', () =>
    compare((directory) => {
      const { qcow2, file } = parts(directory);
      const one = qcow2('one', { file: file('top') });
      const two = qcow2('two', { file: file('base') });
      return [
        hello,
        add({ ...one, backing: null }),
        add(two),
        reopen({ ...one, backing: 'two' }, { ...two, backing: 'one' }),
        graph,
        reopen({ ...one, backing: 'two' }),
        reopen({ ...two, backing: 'one' }, { ...one, backing: null }),
        reopen({ ...one, backing: null }, { ...two, backing: 'one' }),
        graph,
        reopen({ ...two, backing: null, 'read-only': true }, { ...one, backing: 'nope' }),
        nodes,
        graph,
        add({ driver: 'raw', 'node-name': 'w', file: 'two', 'read-only': true }),
        reopen({ ...two, file: 'w', backing: null }),
        reopen({ ...two, file: { driver: 'null-co' }, backing: null }),
        graph,
      ];
    }, flags));

  it('gives raw another window or another file', () =>
    compare((directory) => {
      const { file } = parts(directory);
      const raw = { driver: 'raw', 'node-name': 'r', file: 'f' };
      const null2 = { driver: 'null-co', 'node-name': 'n', size: 2097152 };
      return [
        hello,
        add({ driver: 'null-co', 'node-name': 'f', size: 4194304 }),
        add(null2),
        add(raw),
        reopen({ ...raw, offset: 1048576 }),
        nodes,
        reopen({ ...raw, offset: 1048576, size: 1048576 }),
        reopen({ ...raw, size: 8388608 }),
        reopen({ ...raw, size: 100 }),
        reopen({ ...raw, file: 'n', size: 1048576 }),
        reopen({ ...raw, file: 'r' }),
        reopen({ ...raw, file: 'nowhere' }),
        reopen({ ...raw, file: file('base') }),
        reopen(raw),
        graph,
        add({ driver: 'copy-on-read', 'node-name': 'c', file: 'r' }),
        reopen({ driver: 'copy-on-read', 'node-name': 'c', file: 'r' }),
        reopen(raw),
        reopen({ ...raw, file: 'c' }),
        del('c'),
        del('r'),
        del('f'),
      ];
    }, flags));
});
