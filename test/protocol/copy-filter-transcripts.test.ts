// SPDX-License-Identifier: Apache-2.0
// copy-before-write, snapshot-access and copy-on-read, compared with a real daemon line by line.

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello, namesInOneOrder, top } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const reopen = (options: Line): string => command('blockdev-reopen', { options: [options] });
const resize = (name: string, size: number): string =>
  command('block_resize', { 'node-name': name, size });
const bitmap = (node: string, name: string, more: Line = {}): string =>
  command('block-dirty-bitmap-add', { node, name, ...more });

const look = [
  command('query-named-block-nodes', { flat: true }),
  command('x-debug-query-block-graph'),
];

const MIB = 2 ** 20;

function cbw(more: Line): string {
  return add({ driver: 'copy-before-write', 'node-name': 'c', file: 's', target: 't', ...more });
}

function cor(more: Line): string {
  return add({ driver: 'copy-on-read', 'node-name': 'c', file: 'top', ...more });
}

/** `s` with data and `t` to copy to, 4 MiB each. */
function sourceAndTarget(directory: string): string[] {
  const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
  return [
    hello,
    add({ driver: 'qcow2', 'node-name': 's', file: file('base.qcow2') }),
    add({ driver: 'qcow2', 'node-name': 't', file: file('top.qcow2'), backing: null }),
  ];
}

describe.skipIf(!hasReference)('copy-before-write opens and refuses as a real daemon does', () => {
  it('children, options and what may be written', () =>
    compare(
      (directory) => [
        ...sourceAndTarget(directory),
        add({ driver: 'copy-before-write', 'node-name': 'c' }),
        add({ driver: 'copy-before-write', 'node-name': 'c', file: 's' }),
        add({ driver: 'copy-before-write', 'node-name': 'c', target: 't' }),
        cbw({ target: 'nope' }),
        cbw({ file: 'nope' }),
        cbw({ 'cbw-timeout': -1 }),
        cbw({ 'cbw-timeout': 2 ** 32 }),
        cbw({ 'on-cbw-error': 'ignore' }),
        cbw({ 'on-cbw-error': 'break-snapshot', 'cbw-timeout': 2 ** 32 - 1 }),
        ...look,
        del('s'),
        del('t'),
        del('c'),
        cbw({ 'read-only': true }),
        ...look,
        reopen({ driver: 'copy-before-write', 'node-name': 'c', file: 's', target: 't' }),
        resize('c', 8 * MIB),
        del('c'),
        cbw({ target: 's' }),
        ...look,
        resize('c', 8 * MIB),
        ...look,
        del('c'),
        add({ driver: 'null-co', 'node-name': 'ro', 'read-only': true }),
        cbw({ target: 'ro' }),
        cbw({ target: 'ro', 'read-only': true }),
        cbw({ file: 'ro' }),
        ...look,
      ],
      namesInOneOrder,
    ));

  it('a target that is larger or has another cluster size', () =>
    compare(
      (directory) => [
        ...sourceAndTarget(directory),
        add({ driver: 'null-co', 'node-name': 'n', size: 64 * MIB }),
        cbw({ target: 'n' }),
        ...look,
        del('c'),
        add({ driver: 'null-co', 'node-name': 'small', size: MIB }),
        cbw({ target: 'small' }),
        cbw({ 'node-name': 'd', file: 'c', target: 'n' }),
        ...look,
      ],
      namesInOneOrder,
    ));

  it('the bitmap', () =>
    compare(
      (directory) => [
        ...sourceAndTarget(directory),
        add({ driver: 'null-co', 'node-name': 'n', size: MIB }),
        cbw({ bitmap: { node: 'nope', name: 'b' } }),
        cbw({ bitmap: { node: 's', name: 'b' } }),
        cbw({ bitmap: { node: 's' } }),
        cbw({ bitmap: { name: 'b' } }),
        cbw({ bitmap: 'b' }),
        bitmap('s', 'b'),
        bitmap('s', 'fine', { granularity: 4096 }),
        bitmap('t', 'of-target', { granularity: 2 ** 20 }),
        bitmap('n', 'short'),
        cbw({ bitmap: { node: 'n', name: 'short' } }),
        cbw({ bitmap: { node: 't', name: 'of-target' } }),
        ...look,
        del('c'),
        cbw({ bitmap: { node: 's', name: 'fine' } }),
        cbw({ 'node-name': 'd', bitmap: { node: 's', name: 'b' } }),
        ...look,
        command('block-dirty-bitmap-remove', { node: 's', name: 'fine' }),
        del('d'),
        resize('c', 8 * MIB),
        ...look,
      ],
      namesInOneOrder,
    ));

  it('below a format and as a backing file, by reopening what is above', () =>
    compare(
      (directory) => {
        const base = { driver: 'file', filename: join(directory, 'base.qcow2') };
        const format = { driver: 'qcow2', 'node-name': 's' };
        const overlay = { ...top(directory), file: 'top-file' };
        return [
          hello,
          add({ ...base, 'node-name': 'f' }),
          add({ driver: 'file', filename: join(directory, 'top.qcow2'), 'node-name': 'top-file' }),
          add({ ...format, file: 'f' }),
          add({ ...overlay, backing: 's' }),
          add({ driver: 'null-co', 'node-name': 't', size: MIB }),
          cbw({ file: 'f' }),
          ...look,
          reopen({ ...format, file: 'c' }),
          ...look,
          cbw({ 'node-name': 'd', file: 'f' }),
          cbw({ 'node-name': 'd', file: 's' }),
          reopen({ ...overlay, backing: 'd' }),
          ...look,
          del('d'),
          del('c'),
          reopen({ ...overlay, backing: 's' }),
          reopen({ ...format, file: 'f' }),
          ...look,
          del('d'),
          del('c'),
        ];
      },
      namesInOneOrder,
    ));
});

describe.skipIf(!hasReference)('snapshot-access opens and refuses as a real daemon does', () => {
  it('over a filter that keeps a snapshot, and over others', () =>
    compare(
      (directory) => [
        ...sourceAndTarget(directory),
        cbw({}),
        add({ driver: 'snapshot-access', 'node-name': 'a' }),
        add({ driver: 'snapshot-access', 'node-name': 'a', file: 'nope' }),
        add({ driver: 'snapshot-access', 'node-name': 'a', file: 'c', target: 't' }),
        add({ driver: 'snapshot-access', 'node-name': 'a', file: 'c' }),
        add({ driver: 'snapshot-access', 'node-name': 'b', file: 'a', 'read-only': true }),
        add({ driver: 'snapshot-access', 'node-name': 'plain', file: 's' }),
        ...look,
        add({ driver: 'qcow2', 'node-name': 'q', file: 'plain' }),
        add({ driver: 'raw', 'node-name': 'r', file: 'a' }),
        add({ driver: 'raw', 'node-name': 'r2', file: 'c' }),
        add({ driver: 'copy-on-read', 'node-name': 'r3', file: 'a' }),
        add({ driver: 'compress', 'node-name': 'z', file: 'c' }),
        add({ driver: 'compress', 'node-name': 'z', file: 'a' }),
        ...look,
        reopen({ driver: 'snapshot-access', 'node-name': 'a', file: 'c' }),
        resize('a', 8 * MIB),
        del('c'),
        del('a'),
        del('b'),
      ],
      namesInOneOrder,
    ));

  it('under a job that copies it', () =>
    compare(
      (directory) => [
        ...sourceAndTarget(directory),
        cbw({}),
        add({ driver: 'snapshot-access', 'node-name': 'a', file: 'c' }),
        add({ driver: 'null-co', 'node-name': 'n', size: 4 * MIB }),
        command('blockdev-backup', {
          'job-id': 'j',
          device: 'a',
          target: 'n',
          sync: 'none',
          'filter-node-name': 'filter',
          'auto-dismiss': false,
        }),
        command('query-named-block-nodes', { flat: true }),
        del('a'),
        del('c'),
        command('block-job-cancel', { device: 'j' }),
        command('query-jobs'),
        command('job-dismiss', { id: 'j' }),
        del('a'),
        del('c'),
        ...look,
      ],
      namesInOneOrder,
    ));
});

describe.skipIf(!hasReference)('copy-on-read opens and refuses as a real daemon does', () => {
  it('the bottom, and what it keeps in place', () =>
    compare(
      (directory) => {
        const image = join(directory, 'third.qcow2');
        execFileSync(peer('qemu-img') as string, ['create', '-q', '-f', 'qcow2', image, '4M']);
        const overlay = { ...top(directory), file: 'top-file' };
        return [
          hello,
          add({
            driver: 'file',
            'node-name': 'base-file',
            filename: join(directory, 'base.qcow2'),
          }),
          add({ driver: 'file', 'node-name': 'top-file', filename: join(directory, 'top.qcow2') }),
          add({ driver: 'qcow2', 'node-name': 'mid', file: 'base-file', backing: null }),
          add({ ...overlay, backing: 'mid' }),
          add({ driver: 'qcow2', 'node-name': 'o', file: { driver: 'file', filename: image } }),
          cor({ bottom: 'nope' }),
          add({ driver: 'copy-on-read', 'node-name': 'c', bottom: 'nope' }),
          cor({ 'node-name': 'x' }),
          cor({ bottom: 'x' }),
          cor({ file: 'x', bottom: 'x' }),
          del('x'),
          cor({ bottom: 'mid' }),
          ...look,
          cor({ 'node-name': 'x', bottom: 'mid' }),
          cor({ 'node-name': 'x', file: 'c', bottom: 'mid' }),
          cor({ 'node-name': 'x' }),
          del('x'),
          command('block-stream', { 'job-id': 'j', device: 'c' }),
          command('block-stream', { 'job-id': 'j', device: 'top' }),
          reopen({ ...overlay, backing: null }),
          reopen({ ...overlay, backing: 'o' }),
          reopen({ driver: 'copy-on-read', 'node-name': 'c', file: 'top' }),
          command('blockdev-snapshot', { node: 'top', overlay: 'o' }),
          ...look,
          del('c'),
          del('mid'),
          reopen({ ...overlay, backing: null }),
          ...look,
          cor({ bottom: 'top' }),
          reopen({ ...overlay, backing: 'mid' }),
          ...look,
        ];
      },
      namesInOneOrder,
    ));

  it('over nodes that cannot be written', () =>
    compare(
      (directory) => [
        hello,
        add({ ...top(directory), 'read-only': true }),
        cor({}),
        cor({ 'read-only': true }),
        cor({ bottom: 'top' }),
        del('top'),
        add(top(directory)),
        cor({ 'read-only': true }),
        ...look,
        reopen({ ...top(directory), 'read-only': true }),
        del('c'),
      ],
      namesInOneOrder,
    ));
});
