// SPDX-License-Identifier: Apache-2.0
// blkdebug nodes, compared with a real daemon line by line.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, graphByNames, hasReference, hello } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (more: Line): string =>
  command('blockdev-add', { driver: 'blkdebug', 'node-name': 'd', image: 'n', ...more });
const removed = command('blockdev-del', { 'node-name': 'd' });
const below = command('blockdev-add', { driver: 'null-co', 'node-name': 'n' });
const nodes = command('query-named-block-nodes', { flat: true });

/**
 * Members of `json:` names come in the order of a hash table there, nodes in that of creation
 * reversed, and the size on disk is told for some drivers only.
 */
function comparable(line: Line): Line {
  const text = JSON.stringify(graphByNames(line), (key, value: unknown) => {
    if (key === 'actual-size') return undefined;
    const isJsonName = typeof value === 'string' && value.startsWith('json:');
    return isJsonName ? { json: JSON.parse(value.slice('json:'.length)) as unknown } : value;
  });
  const plain = JSON.parse(text) as Line;
  const list = plain['return'];
  if (!Array.isArray(list)) return plain;
  const named = list as { readonly 'node-name': string }[];
  const sorted = named.toSorted((left, right) => (left['node-name'] < right['node-name'] ? -1 : 1));
  return { ...plain, return: sorted };
}

describe.skipIf(!hasReference)('as a real daemon opens blkdebug', () => {
  it('limits that contradict each other are refused', () =>
    compare(() => [
      hello,
      below,
      ...[
        { align: 3 },
        { align: 2_147_483_648 },
        { align: 1_073_741_824 },
        { align: 0 },
        { align: 4096, 'max-transfer': 1000 },
        { align: 4096, 'max-transfer': 8192 },
        { align: 4096, 'opt-write-zero': 1000 },
        { align: 4096, 'max-write-zero': 1000 },
        { 'max-write-zero': 1024, 'opt-write-zero': 768 },
        { 'max-write-zero': 1536, 'opt-write-zero': 768 },
        { align: 512, 'opt-discard': 1000 },
        { align: 512, 'max-discard': 1000 },
        { 'opt-discard': 1024, 'max-discard': 1536 },
        { 'max-transfer': 2_147_483_647 },
        { 'max-transfer': 2_147_483_648 },
        { 'max-discard': 'a' },
      ].flatMap((more) => [add(more), removed]),
    ]));

  it('rules are read with the same refusals', () =>
    compare(() => [
      hello,
      below,
      command('blockdev-add', { driver: 'blkdebug', 'node-name': 'd' }),
      add({ image: 'gone' }),
      ...[
        { 'inject-error': [{ event: 'nope' }] },
        { 'inject-error': [{}] },
        { 'inject-error': {} },
        { 'inject-error': [{ event: 'none', iotype: 'nope' }] },
        { 'inject-error': [{ event: 'none', sector: -1 }] },
        { 'inject-error': [{ event: 'none', once: 1 }] },
        { 'inject-error': [{ event: 'none', foo: 1 }] },
        { 'set-state': [{ event: 'none', state: 5 }] },
        { 'inject-error': [] },
        { 'set-state': [], 'inject-error': [{ event: 'none' }] },
        { 'take-child-perms': [] },
        { 'unshare-child-perms': [] },
        { 'set-state': [{ event: 'l2_load', state: 5, new_state: 6 }] },
      ].flatMap((more) => [add(more), removed]),
    ]));

  it('files of rules are read with the same refusals', () =>
    compare((directory) => {
      const lines = 'event = "l2_load"';
      const texts = [
        '',
        'event = "none"',
        '[foo]',
        '[]',
        '[ inject-error ]',
        '[inject-error',
        '[inject-error "9"]',
        '[inject-error "a"]\nevent = "none"\n[inject-error "a"]',
        '[inject-error]',
        '[inject-error]\n   ',
        '[inject-error]\nevent = none',
        '[inject-error]\nevent = "nope"',
        '[inject-error]\nevent="none"',
        '[inject-error]\nnew_state = "1"',
        ...[
          'errno = "x"',
          'errno = "0x10"',
          'errno = "-1"',
          'errno = "18446744073709551616"',
          'once = "maybe"',
          'once = "y"',
          'once = "1"',
          'iotype = "nope"',
          'state = "08"',
          'sector = " 12"',
          'foo = "bar"',
          '# no comment',
        ].map((line) => `[inject-error]\n${lines}\n${line}`),
        `[set-state]\n${lines}`,
        `[set-state]\n${lines}\nnew_state = "2"`,
        `[set-state]\n${lines}\nsector = "2"`,
      ];
      const paths = texts.map((text, index) => {
        const path = join(directory, `rules-${index}`);
        writeFileSync(path, `${text}\n`);
        return path;
      });
      const all = [...paths, join(directory, 'gone'), directory];
      return [hello, below, ...all.flatMap((config) => [add({ config }), nodes, removed])];
    }, comparable));

  it('numbers of errors, states and sectors may be anything', () =>
    compare(
      () => [
        hello,
        below,
        ...[
          { errno: 0 },
          { errno: -5 },
          { errno: 99_999 },
          { sector: -7 },
          { sector: Number.MAX_SAFE_INTEGER },
          { state: -1 },
        ].flatMap((more) => [
          add({ 'inject-error': [{ event: 'l2_load', ...more }] }),
          nodes,
          removed,
        ]),
        add({ 'set-state': [{ event: 'none', new_state: -1 }] }),
        nodes,
      ],
      comparable,
    ));

  it('names and edges of its nodes are the same', () =>
    compare(
      () => [
        hello,
        below,
        ...[
          {},
          { align: 4096, 'max-transfer': 8192 },
          { 'inject-error': [{ event: 'none', errno: 5, once: true, sector: 4, state: 2 }] },
          { 'take-child-perms': ['write'], 'unshare-child-perms': ['write', 'resize'] },
        ].flatMap((more) => [add(more), nodes, command('x-debug-query-block-graph'), removed]),
      ],
      comparable,
    ));

  it.each([
    ['read_aio', 'source'],
    ['write_aio', 'target'],
  ])('raw passes %s on, where a mirror then fails', (event, failing) =>
    compare((directory) => [
      hello,
      ...['source', 'target'].map((name, index) => {
        const filename = join(directory, `${['base', 'copy'][index]}.qcow2`);
        const image = { driver: 'file', filename };
        const rule = { event, errno: 5, sector: 128, once: true };
        const rules = name === failing ? { 'inject-error': [rule] } : {};
        return command('blockdev-add', {
          driver: 'raw',
          'node-name': name,
          size: 196_608,
          file: { driver: 'blkdebug', image, ...rules },
        });
      }),
      untilEvent('null m', 'blockdev-mirror', {
        'job-id': 'm', device: 'source', target: 'target', sync: 'full', granularity: 65_536,
        'buf-size': 65_536,
      }),
    ]));

  it('permissions that it takes and withholds conflict', () =>
    compare(() => [
      hello,
      below,
      add({ 'take-child-perms': ['write'], 'unshare-child-perms': ['write'] }),
      add({ 'node-name': 'e', 'take-child-perms': ['write'] }),
      add({ 'node-name': 'e', 'unshare-child-perms': ['write'] }),
      add({ 'node-name': 'e', 'take-child-perms': ['consistent-read', 'write-unchanged'] }),
    ]));
});
