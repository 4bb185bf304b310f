// SPDX-License-Identifier: Apache-2.0
// blockdev-reopen of filters and null nodes: which can, what may change, compared with a real
// daemon.

import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, graphByNames, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const reopen = (...options: readonly Line[]): string => command('blockdev-reopen', { options });
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const removeObject = (id: string): string => command('object-del', { id });
const graph = command('x-debug-query-block-graph');

const zero = { driver: 'null-co', size: 1_048_576, 'read-zeroes': true };
const n = { ...zero, 'node-name': 'n' };
const m = { ...zero, 'node-name': 'm' };

/** Adds a node, tries every set of options on it, and deletes it. */
function tried(node: Line, ...changes: readonly Line[]): Step[] {
  const reopens = changes.map((change) => reopen({ ...node, ...change }));
  return [add(node), ...reopens, graph, del(String(node['node-name']))];
}

describe.skipIf(!hasReference)('a reopen of a filter, as a real daemon does it', () => {
  it('gives throttle another group and another file, and refuses what is not there', () =>
    compare(() => {
      const t = { driver: 'throttle', 'node-name': 't', file: 'n', 'throttle-group': 'g1' };
      const second = { ...t, 'throttle-group': 'g2' };
      return [
        hello,
        ...['g1', 'g2'].map((id) => command('object-add', { 'qom-type': 'throttle-group', id })),
        add(n),
        add(m),
        add(t),
        reopen(t),
        removeObject('g1'),
        reopen(second),
        removeObject('g2'),
        removeObject('g1'),
        reopen({ ...t, 'throttle-group': 'none' }),
        reopen({ ...t, 'throttle-group': 7 }),
        removeObject('g2'),
        reopen({ driver: 'throttle', 'node-name': 't', file: 'n' }),
        reopen({ driver: 'throttle', 'node-name': 't', 'throttle-group': 'g2' }),
        reopen({ ...second, file: 'm' }),
        graph,
        reopen({ ...second, file: 't' }),
        reopen({ ...second, file: null }),
        reopen({ ...second, file: 'nope' }),
        reopen({ ...second, file: n }),
        reopen({ ...second, 'read-only': true }),
        reopen({ ...second, file: 'n' }, { ...n, size: 512 }),
        graph,
        reopen({ ...second, file: 'm' }, { ...m, 'read-only': true }),
        graph,
        del('t'),
        removeObject('g2'),
      ];
    }, graphByNames));

  it('lets blkdebug keep its rules, and takes no others', () =>
    compare(() => {
      const plain = { driver: 'blkdebug', 'node-name': 'b', image: 'n' };
      const rule = [{ event: 'l1_update', errno: 5 }];
      return [
        hello,
        add(n),
        add(m),
        ...tried(
          plain,
          {},
          { 'read-only': true },
          { image: 'm' },
          { align: 4096 },
          { 'inject-error': [{ event: 'none' }] },
          { config: 'x' },
          { image: null },
          { 'detect-zeroes': 'on' },
        ),
        ...tried({ ...plain, align: 4096 }, {}, { align: 512 }, { 'take-child-perms': ['write'] }),
        add({ ...plain, 'inject-error': rule }),
        reopen(plain),
        reopen({ ...plain, 'inject-error': rule }),
        reopen({ ...plain, 'inject-error': [{ event: 'l1_update', errno: 7 }] }),
        reopen({ ...plain, 'inject-error': [{ event: 'l1_update' }] }),
      ];
    }, graphByNames));

  it('refuses filters that cannot, by their names', () =>
    compare((directory) => {
      const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
      const q = { driver: 'qcow2', 'node-name': 'q', file: file('base.qcow2') };
      const log = file('top.qcow2');
      const cor = { driver: 'copy-on-read', 'node-name': 'c', file: 'n' };
      return [
        hello,
        add(n),
        add(m),
        add(q),
        ...tried(cor, {}, { 'read-only': true }, { file: 'm' }, { bottom: 'n' }),
        ...tried({ driver: 'compress', 'node-name': 'c', file: 'q' }, {}, { file: 'm' }),
        ...tried({ driver: 'blkverify', 'node-name': 'c', test: 'n', raw: 'm' }, {}, { raw: 'q' }),
        ...tried(
          { driver: 'copy-before-write', 'node-name': 'c', file: 'n', target: 'm' },
          {},
          { target: 'q' },
        ),
        ...tried({ driver: 'blklogwrites', 'node-name': 'c', file: 'n', log }, {}, { log: 'm' }),
        // The list is refused as a whole.
        add(cor),
        reopen({ ...m, 'read-only': true }, cor),
        command('query-named-block-nodes', { flat: true }),
      ];
    }, readOnlyFlags));

  it('lets null-aio change nothing but flags', () =>
    compare(() => {
      const aio = { driver: 'null-aio', 'node-name': 'a', size: 1_048_576 };
      const { size: _, ...sizeless } = aio;
      return [
        hello,
        ...tried(aio, {}, { size: 1024 }, { 'latency-ns': 7 }, { 'read-only': true }),
        add(aio),
        reopen(sizeless),
      ];
    }, graphByNames));

  it('refuses cache sizes of qcow2 that make no sense, on opening too', () =>
    compare((directory) => {
      const filename = join(directory, 'base.qcow2');
      const q = { driver: 'qcow2', 'node-name': 'q', file: { driver: 'file', filename } };
      const sizes = [
        { 'l2-cache-size': 1 },
        { 'cache-size': 65_536, 'l2-cache-size': 131_072 },
        { 'cache-size': 65_536, 'refcount-cache-size': 131_072 },
        { 'cache-size': 1_048_576, 'l2-cache-size': 65_536, 'refcount-cache-size': 65_536 },
        { 'l2-cache-entry-size': 1000 },
        { 'l2-cache-entry-size': 256 },
        { 'l2-cache-entry-size': 131_072 },
        { 'l2-cache-entry-size': 4096 },
        { 'refcount-cache-size': Number.MAX_SAFE_INTEGER },
        { 'cache-clean-interval': -1 },
        { 'cache-clean-interval': 2 ** 32 },
        { 'cache-clean-interval': 0 },
      ];
      const opened = sizes.flatMap((each) => [add({ ...q, ...each }), del('q')]);
      return [hello, ...opened, add(q), ...sizes.map((each) => reopen({ ...q, ...each })), graph];
    }, graphByNames));

  it('makes an image writable whose header has unknown autoclear features', () =>
    compare((directory) => {
      const filename = join(directory, 'base.qcow2');
      const q = { driver: 'qcow2', 'node-name': 'q', file: { driver: 'file', filename } };
      setBit(filename);
      return [hello, add({ ...q, 'read-only': true }), reopen(q), graph, del('q')];
    }, graphByNames));
});

/** Sets autoclear bit 5 as soon as there is an image to have it. */
function setBit(path: string): void {
  try {
    const file = openSync(path, 'r+');
    writeSync(file, Uint8Array.of(0x20), 0, 1, 95);
    closeSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function readOnlyFlags(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return graphByNames(line);
  return { return: list.map((node: Line) => `${String(node['node-name'])} ${String(node['ro'])}`) };
}
