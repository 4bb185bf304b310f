// SPDX-License-Identifier: Apache-2.0
// Small filters, compared with a real daemon line by line.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);

describe.skipIf(!hasReference)('as a real daemon opens', () => {
  const look = [
    command('query-named-block-nodes', { flat: true }),
    command('x-debug-query-block-graph'),
  ];

  it('compress over a format that can, and not over another', () =>
    compare(
      (directory) => [
        hello,
        add({ driver: 'null-co', 'node-name': 'n' }),
        add({ driver: 'file', 'node-name': 'f', filename: join(directory, 'base.qcow2') }),
        add({ driver: 'qcow2', 'node-name': 'q', file: 'f' }),
        add({ driver: 'compress', 'node-name': 'c', file: 'n' }),
        add({ driver: 'compress', 'node-name': 'c', file: 'f' }),
        add({ driver: 'compress', 'node-name': 'c' }),
        add({ driver: 'compress', 'node-name': 'c', file: 'q' }),
        add({ driver: 'compress', 'node-name': 'cc', file: 'c' }),
        ...look,
        command('blockdev-del', { 'node-name': 'q' }),
        command('blockdev-del', { 'node-name': 'cc' }),
        command('blockdev-del', { 'node-name': 'c' }),
        command('blockdev-del', { 'node-name': 'q' }),
      ],
      namesInOneOrder,
    ));

  it('blklogwrites', () =>
    compare(
      (directory) => {
        const log = { driver: 'file', filename: join(directory, 'top.qcow2') };
        const open = (more: Line): string =>
          add({ driver: 'blklogwrites', 'node-name': 'l', file: 'n', log: 'g', ...more });
        return [
          hello,
          add({ driver: 'null-co', 'node-name': 'n' }),
          add({ ...log, 'node-name': 'g' }),
          add({ driver: 'blklogwrites', 'node-name': 'l', file: 'n' }),
          add({ driver: 'blklogwrites', 'node-name': 'l', log: 'g' }),
          ...[100, 16, 16_777_216, -1].map((size) => open({ 'log-sector-size': size })),
          open({ 'log-super-update-interval': 0 }),
          open({ 'log-append': true, 'log-sector-size': 512 }),
          open({ 'log-append': true }),
          open({ 'log-sector-size': 8_388_608 }),
          ...look,
          command('blockdev-del', { 'node-name': 'g' }),
          command('blockdev-del', { 'node-name': 'l' }),
        ];
      },
      namesInOneOrder,
    ));

  it('blkverify and null-aio', () =>
    compare(
      () => [
        hello,
        add({ driver: 'null-co', 'node-name': 'n' }),
        add({ driver: 'null-aio', 'node-name': 'na', size: 1000, 'latency-ns': 5 }),
        add({ driver: 'null-aio', 'node-name': 'nb' }),
        add({ driver: 'blkverify', 'node-name': 'v', test: 'n' }),
        add({ driver: 'blkverify', 'node-name': 'v', raw: 'n' }),
        add({ driver: 'blkverify', 'node-name': 'v', test: 'n', raw: 'na' }),
        ...look,
        command('blockdev-del', { 'node-name': 'n' }),
        command('blockdev-del', { 'node-name': 'v' }),
      ],
      namesInOneOrder,
    ));
});
