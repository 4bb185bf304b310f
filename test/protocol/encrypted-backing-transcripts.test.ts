// SPDX-License-Identifier: Apache-2.0
// Encrypted images below others, beside a real daemon: named in headers, with their secret and
// without, given by hand, and left behind by snapshots whose names open them again.
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, it } from 'vitest';

import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { someOf } from '../helpers/seeds.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const MIB = 2 ** 20;
let alone: Uint8Array;
let inside: Uint8Array;

const KEY = { format: 'luks', 'key-secret': 's0' };
const add = (options: Line): string => command('blockdev-add', options);
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const nodes = command('query-named-block-nodes', { flat: true });
const graph = command('x-debug-query-block-graph');

/** Backing names as headers may have them: plain, and with options in each way to write them. */
const HEADERS = (directory: string): readonly (readonly [string, string])[] => {
  const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
  const named = (options: Line): string => `json:${JSON.stringify(options)}`;
  const qcow2 = (more: Line): string => named({ driver: 'qcow2', file: file('q'), ...more });
  return [
    ['l', 'luks'],
    ['q', 'qcow2'],
    [named({ driver: 'luks', 'key-secret': 's0', file: file('l') }), 'luks'],
    [qcow2({ 'encrypt.key-secret': 's0' }), 'qcow2'],
    [qcow2({ encrypt: KEY }), 'qcow2'],
    [qcow2({ encrypt: { 'key-secret': 's0' } }), 'qcow2'],
    [qcow2({ encrypt: { ...KEY, format: 'aes' } }), 'qcow2'],
    [qcow2({ 'encrypt.format': 'luks', 'encrypt.key-secret': 'gone' }), 'qcow2'],
  ];
};

function withoutEmptyReplies(line: Line): Line | null {
  return JSON.stringify(line) === '{"return":{}}' ? null : namesInOneOrder(line);
}

const HEADER_COUNT = 8;
/** Of the header with this number; by default some of them are played. */
const overlays = someOf(Array.from({ length: HEADER_COUNT }, (_, index) => index), 4);

const play = (
  makeSteps: (directory: string) => readonly Step[],
  headers: readonly number[],
): Promise<void> =>
  compare(
    (directory) => [
      hello,
      ...Object.entries({ s0: 'pw', s1: 'wrong', s2: 'other' }).map(([id, data]) =>
        command('object-add', { 'qom-type': 'secret', id, data }),
      ),
      ...makeSteps(directory),
    ],
    withoutEmptyReplies,
    (directory) => {
      writeFileSync(join(directory, 'l'), alone);
      for (const name of ['q', 'e']) writeFileSync(join(directory, name), inside);
      for (const index of headers) {
        const path = join(directory, `o${index}`);
        // Both begin with it, and nothing writes to it.
        if (existsSync(path)) continue;
        const [name, format] = HEADERS(directory)[index] ?? ['', ''];
        const words = ['create', '-q', '-u', '-f', 'qcow2', '-b', name, '-F', format, path, '1M'];
        execFileSync(peer('qemu-img') as string, words);
      }
    },
  );

/** Opens and closes an overlay. */
const opened = (directory: string, name: string, more: Line = {}): Step[] => [
  add({
    driver: 'qcow2', 'node-name': 't', ...more,
    file: { driver: 'file', filename: join(directory, name) },
  }),
  nodes,
  graph,
  del('t'),
];

describe.skipIf(!hasReference)('encrypted images below others', () => {
  beforeAll(async () => {
    alone = (await makeLuks(['pw', undefined, 'other'], { payload: MIB })).bytes;
    inside = inQcow2(alone.subarray(0, alone.length - MIB));
  });

  it('open by what the header of the overlay says of their secret, or by hand', () =>
    play((directory) => {
      const byHand = { driver: 'luks', 'key-secret': 's2' };
      const file = { driver: 'file', filename: join(directory, 'l') };
      return [
        ...overlays.flatMap((index) => opened(directory, `o${index}`)),
        ...opened(directory, 'o0', { backing: { ...byHand, file } }),
        ...opened(directory, 'o0', { backing: byHand }),
        ...opened(directory, 'o0', { backing: { driver: 'qcow2', encrypt: KEY } }),
        ...opened(directory, 'o0', { backing: null }),
      ];
    }, overlays));

  it('are named with it by snapshots, which open again', () =>
    play((directory) => {
      const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
      const data = (node: string, name: string): Line => ({
        'node-name': node, 'snapshot-node-name': name, 'snapshot-file': join(directory, name),
      });
      const transaction = (...actions: readonly (readonly [string, Line])[]): string => {
        const list = actions.map(([type, each]) => ({ type, data: each }));
        return command('transaction', { actions: list });
      };
      return [
        add({ driver: 'luks', 'node-name': 'l', 'key-secret': 's0', file: file('l') }),
        add({ driver: 'qcow2', 'node-name': 'q', encrypt: KEY, file: file('q') }),
        add({ driver: 'qcow2', 'node-name': 'e', encrypt: KEY, file: file('e'), backing: null }),
        command('blockdev-snapshot-sync', data('l', 'x1')),
        command('blockdev-snapshot-sync', data('q', 'x2')),
        transaction(
          ['blockdev-snapshot', { node: 'x1', overlay: 'e' }],
          ['block-dirty-bitmap-add', { node: 'e', name: 'b', persistent: true }],
        ),
        nodes,
        transaction(['blockdev-snapshot-sync', data('e', 'x3')], ['abort', {}]),
        command('change-backing-file', {
          device: 'e', 'image-node-name': 'e', 'backing-file': 'x1',
        }),
        untilEvent('ready c', 'block-commit', { 'job-id': 'c', device: 'e', 'base-node': 'l' }),
        untilEvent('null c', 'job-complete', { id: 'c' }),
        nodes,
        graph,
        ...['e', 'x1', 'x2', 'l', 'q'].map(del),
        ...opened(directory, 'x1'),
        ...opened(directory, 'x2'),
      ];
    }, []));
});
