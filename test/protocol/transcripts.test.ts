// SPDX-License-Identifier: Apache-2.0
// Requests, arguments, nodes and bitmaps: the same conversation with a real daemon, line by line.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  top,
  withoutSizes,
} from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';

describe.skipIf(!hasReference)('as a real daemon answers', () => {
  it('negotiation is per connection and comes first', () =>
    compare(() => [
      command('query-version'),
      command('no-such-command'),
      '{"execute": "qmp_capabilities", "arguments": {"enable": ["none"]}}',
      '{"execute": "qmp_capabilities", "arguments": {"enable": 1}}',
      '{"execute": "qmp_capabilities", "arguments": {"enable": [1]}}',
      '{"execute": "qmp_capabilities", "arguments": {"x": 1}}',
      '{"exec-oob": "query-version"}',
      '{"execute": "qmp_capabilities", "id": {"a": [1, null]}}',
      hello,
    ]));

  it('oob is understood once it is enabled', () =>
    compare(() => [
      '{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}',
      '{"exec-oob": "query-jobs", "id": 1}',
      '{"exec-oob": "no-such", "id": 2}',
      '{"execute": "query-jobs", "exec-oob": "query-jobs"}',
      '{"exec-oob": 1}',
    ]));

  it('the shape of a request is checked member by member', () =>
    compare(() => [
      hello,
      '[]',
      '"text" ',
      '12 ',
      '{}',
      '{"id": 7}',
      '{"exec": 1}',
      '{"execute": 1, "id": "x"}',
      '{"execute": "query-jobs", "arguments": []}',
      '{"execute": "query-jobs", "arguments": null}',
      '{"execute": "query-jobs", "control": {}}',
      '{"execute": "query-jobs", "arguments": {"x": 1}}',
      '{"execute": "query-jobs", "arguments": {}, "id": 18446744073709551615}',
      "{'execute': 'query-jobs', 'id': 'a\"b'}",
      '{"execute": "query-jobs"}{"execute": "query-block-jobs"}',
      '{"execute":\n"query-\\u006aobs"}',
    ]));

  it('arguments are checked by schema before anything happens', () =>
    compare(() => [
      hello,
      command('blockdev-add'),
      command('blockdev-add', { driver: 'zip' }),
      command('blockdev-add', { driver: 1 }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n' }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: {} }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file' } }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: null }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: 1 }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: 'x', backing: [] }),
      command('blockdev-add', { driver: 'raw', 'node-name': 'n', file: 'x', discard: 'no' }),
      command('blockdev-add', { driver: 'raw', 'node-name': 'n', file: 'x', cache: { direct: 1 } }),
      command('blockdev-add', { driver: 'raw', 'node-name': 'n', 'file.driver': 'file' }),
      '{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"n","size":1.0}}',
      command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: '1k' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b', granularity: -1 }),
      command('block-stream', { device: 'n', 'job-id': 'x', 'on-error': 'never' }),
      command('block-stream', { device: 'n', 'job-id': 'x', speed: 9223372036854775808n }),
      command('blockdev-create', { 'job-id': 'a', options: {} }),
      command('query-jobs'),
    ]));

  it('unknown jobs are told apart by the family of the verb', () =>
    compare(() => [
      hello,
      ...['pause', 'resume', 'cancel', 'complete', 'dismiss', 'finalize'].flatMap((verb) => [
        command(`job-${verb}`, { id: 'no' }),
        command(
          `block-job-${verb}`,
          verb === 'dismiss' || verb === 'finalize' ? { id: 'no' } : { device: 'no' },
        ),
      ]),
      command('block-job-set-speed', { device: 'no', speed: 1 }),
    ]));

  it('nodes are added and deleted under the same rules', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', { driver: 'null-co', size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': '1n', size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'x'.repeat(32), size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 512 }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'nowhere' }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'n' }),
        command('blockdev-del', { 'node-name': 'n' }),
        command('blockdev-del', { 'node-name': 'no' }),
        command('blockdev-del', { 'node-name': 'r' }),
        command('blockdev-del', { 'node-name': 'n' }),
        command('blockdev-add', top(directory, { file: { driver: 'file', filename: '/nowhere' } })),
        command('blockdev-add', top(directory)),
        command('blockdev-del', { 'node-name': 'top' }),
      ],
    ));

  it('bitmaps are refused and kept under the same rules', () =>
    compare(() => [
      hello,
      command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 1048576 }),
      command('block-dirty-bitmap-add', { node: 'no', name: 'b' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b', granularity: 3 }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b', granularity: 256 }),
      command('block-dirty-bitmap-add', { node: 'n', name: '' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'x'.repeat(1024) }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-disable', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-enable', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-clear', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-clear', { node: 'n', name: 'c' }),
      command('block-dirty-bitmap-remove', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-remove', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-remove', { node: 'no', name: 'b' }),
    ]));

  it('nodes of a chain are described alike', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('block-dirty-bitmap-add', { node: 'top', name: 'b', granularity: 65536 }),
        command('query-named-block-nodes', { flat: true }),
        command('query-named-block-nodes'),
      ],
      withoutSizes,
    ));

  it('permissions that conflict are refused with nothing changed', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', {
          driver: 'file',
          'node-name': 'f',
          filename: join(directory, 'top.qcow2'),
        }),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'one', file: 'f' }),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'two', file: 'f' }),
        command('blockdev-add', top(directory)),
        command('blockdev-del', { 'node-name': 'f' }),
        command('blockdev-del', { 'node-name': 'one' }),
        command('blockdev-del', { 'node-name': 'f' }),
      ],
    ));

  it('the permissions of every edge are the same', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', {
          driver: 'file',
          'node-name': 'f',
          filename: join(directory, 'top.qcow2'),
        }),
        command('x-debug-query-block-graph'),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'top', file: 'f' }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'top' }),
        command('blockdev-add', {
          driver: 'qcow2',
          'node-name': 'base',
          'read-only': true,
          file: { driver: 'file', 'node-name': 'b', filename: join(directory, 'base.qcow2') },
        }),
        command('x-debug-query-block-graph'),
      ],
      graphByNames,
    ));

  it('a node that the image has not is refused, and so are options it cannot take', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory, { backing: 'nowhere' })),
        command('blockdev-add', top(directory, { backing: null })),
        command('blockdev-del', { 'node-name': 'top' }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: top(directory) }),
        command('blockdev-del', { 'node-name': 'top' }),
        command('blockdev-del', { 'node-name': 'r' }),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'q', file: 'q' }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 65536 }),
        command('blockdev-add', {
          driver: 'raw',
          'node-name': 'r',
          file: 'n',
          offset: 512,
          size: 131072,
        }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'n', offset: 100 }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'n', offset: 131072 }),
        command('blockdev-add', { driver: 'file', 'node-name': 'd', filename: directory }),
      ],
    ));
});
