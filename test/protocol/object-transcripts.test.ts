// SPDX-License-Identifier: Apache-2.0
// Objects and throttle nodes, compared with a real daemon line by line.

import { describe, it } from 'vitest';

import { listObjectTypes } from '../../src/engine/index.js';
import { compare, hasReference, hello, withoutSizes } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (id: string, more: Line = {}): string =>
  command('object-add', { 'qom-type': 'throttle-group', id, ...more });
const limits = (value: unknown): string =>
  command('qom-set', { path: 'g0', property: 'limits', value });
const get = (path: string, property: string): string =>
  command('qom-get', { path, property });

/** Members of `json:` names come in the order of a hash table too. */
function namesInOneOrder(line: Line): Line {
  const text = JSON.stringify(line, (_, value: unknown) => {
    const isJsonName = typeof value === 'string' && value.startsWith('json:');
    return isJsonName ? { json: JSON.parse(value.slice('json:'.length)) as unknown } : value;
  });
  return JSON.parse(text) as Line;
}

/** Properties come in the order of a hash table there. */
function propertiesInOneOrder(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const named = list as { readonly name?: string }[];
  const sorted = named.toSorted((left, right) =>
    (left.name ?? '') < (right.name ?? '') ? -1 : 1,
  );
  return withoutSizes({ ...line, return: sorted });
}

function inNodeOrder(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const nodes = list as { readonly 'node-name': string }[];
  const sorted = nodes.toSorted((left, right) =>
    left['node-name'] < right['node-name'] ? -1 : 1,
  );
  return { ...line, return: sorted };
}

describe.skipIf(!hasReference)('as a real daemon keeps objects', () => {
  it('adding, finding, listing and removing', () =>
    compare(
      () => [
        hello,
        add('g0'),
        add('g0'),
        add('type'),
        ...['/objects', '/objects/', 'objects', '/objects/g0', 'g0', 'objects/g0'].map((path) =>
          command('qom-list', { path }),
        ),
        ...['/nope', '', '/objects/g0/x', 'g0/'].map((path) => command('qom-list', { path })),
        command('qom-list'),
        get('g0', 'type'),
        get('/objects', 'type'),
        get('/', 'type'),
        get('/', 'objects'),
        get('/objects', 'g0'),
        get('g0', 'nope'),
        get('zz', 'nope'),
        get('g0', 'x-bps-total-max-length'),
        command('qom-set', { path: 'zz', property: 'nope', value: 1 }),
        command('qom-set', { path: 'g0', property: 'nope', value: 1 }),
        command('qom-set', { path: 'g0', property: 'type', value: 'a' }),
        command('qom-set', { path: '/objects', property: 'g0', value: 1 }),
        command('qom-set', { path: 'g0', property: 'x-bps-total', value: 1 }),
        // Two objects end with that path: only a list says so.
        command('chardev-add', { id: 'g0', backend: { type: 'null', data: {} } }),
        get('g0', 'type'),
        get('', 'type'),
        command('qom-list', { path: 'g0' }),
        command('qom-set', { path: 'g0', property: 'x-bps-total', value: 1 }),
        command('chardev-remove', { id: 'g0' }),
        command('object-add', { 'qom-type': 'throttle-group' }),
        command('object-add', { id: 'x' }),
        command('object-add', { 'qom-type': 'nope', id: 'x' }),
        ...['1x', '', 'a b'].map((id) => add(id)),
        add('g3', { nope: 10 }),
        add('g3', { 'x-iops-total': 10, 'x-iops-read': 2 }),
        add('g3', { 'x-iops-total': -10 }),
        add('g3', { 'x-iops-total-max-length': 0 }),
        add('g3', { 'x-iops-total-max': 10 }),
        add('g3', { limits: { 'bps-total': 1, 'bps-read': 1 } }),
        add('g3', { limits: { 'bps-read': -3 } }),
        add('g3', { 'x-iops-total': 10, 'x-bps-read': 3 }),
        get('g3', 'limits'),
        get('g3', 'x-iops-total'),
        add('g4', { limits: { 'iops-read': 4, 'iops-size': 512 } }),
        get('g4', 'limits'),
        command('object-del', { id: 'nope' }),
        command('object-del', { id: 'a/b' }),
        command('object-del', { id: 'type' }),
        command('object-del', { id: 'g3' }),
        get('g3', 'limits'),
        add('g3'),
      ],
      propertiesInOneOrder,
    ));

  it('limits are checked together and changed in place', () =>
    compare(() => [
      hello,
      add('g0'),
      get('g0', 'limits'),
      ...[
        1,
        { nope: 1 },
        { 'bps-total': 'a' },
        { 'bps-total': 1.5 },
        { 'bps-total': -1 },
        { 'bps-total': 1, 'bps-read': 1 },
        { 'iops-total': 1, 'iops-write': 1 },
        { 'bps-total': 100, 'bps-total-max': 50 },
        { 'bps-total-max': 50 },
        { 'bps-total': 10, 'bps-total-max-length': 50 },
        { 'bps-total': 10, 'bps-total-max': 20, 'bps-total-max-length': 0 },
        { 'bps-total': 10, 'bps-total-max-length': 0 },
        { 'iops-size': 10 },
        { 'iops-total': 4, 'bps-read': 9, 'iops-size': 10 },
        { 'bps-write': 9 },
        { 'iops-total': 0, 'bps-read': 0, 'bps-write': 0, 'iops-total-max': 3 },
        { 'bps-read': 1_000_000_000_000_001 },
        { 'bps-read': 1_000_000_000_000_000 },
        { 'bps-read': 10, 'bps-read-max': 1e15, 'bps-read-max-length': 2 },
        { 'bps-read': 10, 'bps-read-max': 1e15, 'bps-read-max-length': 1 },
        { 'bps-read': 10, 'bps-read-max': 1e10, 'bps-read-max-length': 4_294_967_296 },
        { 'bps-read': 10, 'bps-read-max': 1000, 'bps-read-max-length': 4_294_967_295 },
      ].flatMap((value) => [limits(value), get('g0', 'limits')]),
    ]));

  it('throttle nodes use a group, which then cannot be removed', () =>
    compare(
      () => [
        hello,
        add('g0'),
        add('g1', { limits: { 'bps-total': 4096 } }),
        ...[
          { 'throttle-group': 'nope', file: { driver: 'null-co', 'node-name': 'n' } },
          { 'throttle-group': '', file: { driver: 'null-co', 'node-name': 'n' } },
          { 'throttle-group': 'g0' },
          { file: { driver: 'null-co', 'node-name': 'n' } },
          { 'throttle-group': 'g0', file: { driver: 'null-co', 'node-name': 'n' } },
        ].map((more) =>
          command('blockdev-add', { driver: 'throttle', 'node-name': 't', ...more }),
        ),
        command('blockdev-add', {
          driver: 'throttle',
          'node-name': 't2',
          'throttle-group': 'g1',
          file: 'n',
        }),
        command('object-del', { id: 'g0' }),
        command('query-named-block-nodes', { flat: true }),
        command('blockdev-del', { 'node-name': 'n' }),
        command('blockdev-del', { 'node-name': 't' }),
        command('object-del', { id: 'g0' }),
        command('object-del', { id: 'g1' }),
        command('blockdev-del', { 'node-name': 't2' }),
        command('object-del', { id: 'g1' }),
        command('query-named-block-nodes', { flat: true }),
      ],
      (line) => inNodeOrder(namesInOneOrder(line)),
    ));

  it('threads and the main loop', () =>
    compare(() => {
      const thread = (id: string, more: Line = {}): string =>
        command('object-add', { 'qom-type': 'iothread', id, ...more });
      const loop = (id: string, more: Line = {}): string =>
        command('object-add', { 'qom-type': 'main-loop', id, ...more });
      const names = ['poll-max-ns', 'poll-grow', 'poll-shrink', 'aio-max-batch'];
      const pool = ['thread-pool-min', 'thread-pool-max'];
      const values = [5, -1, 'x', 1.5, 9_007_199_254_740_993n, 2n ** 64n - 1n, null];
      return [
        hello,
        command('qom-list', { path: '/objects' }),
        thread('i'),
        thread('i'),
        thread('1'),
        thread('x', { nope: 1 }),
        ...[...names, ...pool].map((name) => get('i', name)),
        ...[...names, ...pool].map((name) => thread('x', { [name]: -2 })),
        thread('x', { 'poll-max-ns': '5' }),
        thread('x', { 'thread-pool-min': 100 }),
        thread('x', { 'thread-pool-max': 0 }),
        thread('x', { 'thread-pool-min': 70, 'thread-pool-max': 60 }),
        thread('j', Object.fromEntries([...names, ...pool].map((name, at) => [name, at + 1]))),
        ...[...names, ...pool].map((name) => get('j', name)),
        ...names.flatMap((property) =>
          values.flatMap((value) => [
            command('qom-set', { path: 'i', property, value }),
            get('i', property),
          ]),
        ),
        ...[
          ['thread-pool-min', 65],
          ['thread-pool-max', 0],
          ['thread-pool-min', 4],
          ['thread-pool-max', 2],
          ['thread-pool-max', 65_536],
          ['thread-pool-min', -1],
        ].flatMap(([property, value]) => [
          command('qom-set', { path: 'i', property, value }),
          get('i', String(property)),
        ]),
        loop('l', { 'aio-max-batch': -1 }),
        loop('l', { 'poll-max-ns': 3 }),
        loop('l', { 'thread-pool-max': 9 }),
        loop('l2'),
        command('qom-set', { path: 'l', property: 'aio-max-batch', value: 7 }),
        get('l', 'aio-max-batch'),
        get('l', 'type'),
        command('object-del', { id: 'l' }),
        command('object-del', { id: 'j' }),
        get('j', 'poll-grow'),
        ...['/objects', '/objects/i', '/objects/l'].map((path) => command('qom-list', { path })),
      ];
    }, propertiesInOneOrder));

  it('a node on a thread', () =>
    compare(() => {
      const place = (name: string, iothread: unknown, more: Line = {}): string =>
        command('x-blockdev-set-iothread', { 'node-name': name, iothread, ...more });
      const node = (name: string): string =>
        command('blockdev-add', { driver: 'null-co', 'node-name': name, size: 65_536 });
      return [
        hello,
        command('object-add', { 'qom-type': 'iothread', id: 'i' }),
        add('g'),
        node('n'),
        node('m'),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'n' }),
        place('n', 'i'),
        place('n', 'i', { force: true }),
        place('n', 'nope'),
        place('n', 'g'),
        place('nope', 'i'),
        place('nope', 'nope'),
        place('n', 1),
        command('x-blockdev-set-iothread', { 'node-name': 'n' }),
        command('x-blockdev-set-iothread', { iothread: 'i' }),
        place('r', null),
        place('n', null),
        untilEvent('BLOCK_JOB_READY', 'blockdev-mirror', {
          'job-id': 'j',
          device: 'n',
          target: 'm',
          sync: 'full',
        }),
        place('m', 'nope'),
        place('m', null),
        untilEvent('null j', 'job-cancel', { id: 'j' }),
        place('m', 'i'),
        place('m', null),
        command('object-del', { id: 'i' }),
        place('m', 'i'),
      ];
    }));

  it('types that both have', () => {
    const ours = listObjectTypes(undefined, true).map(({ name }) => name);
    const shared = (line: Line): Line => {
      const list = line['return'];
      if (!Array.isArray(list)) return line;
      const types = list as { readonly name: string; readonly parent?: string; type?: string }[];
      const kept = types.filter(({ name, type }) => type !== undefined || ours.includes(name));
      return propertiesInOneOrder({ return: kept });
    };
    const ancestors = ['object', 'event-loop-base', 'chardev', 'chardev-fd', 'chardev-ringbuf'];
    const others = ['user-creatable', 'interface', 'container', 'throttle-group', 'nope', ''];
    return compare(
      () => [
        hello,
        ...[{}, { abstract: true }, { abstract: false }, { abstract: 1 }].map((args) =>
          command('qom-list-types', args),
        ),
        ...[...ancestors, ...others].flatMap((name) =>
          [false, true].map((abstract) =>
            command('qom-list-types', { implements: name, abstract }),
          ),
        ),
        ...[...ours, 'nope', ''].map((typename) =>
          command('qom-list-properties', { typename }),
        ),
        command('qom-list-properties'),
      ],
      shared,
    );
  });
});
