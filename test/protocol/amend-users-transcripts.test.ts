// SPDX-License-Identifier: Apache-2.0
// Keyslots that change while others use the image or its file: jobs, filters and other amends, what
// a job that has ended still takes orders for, and reopening meanwhile. Beside a real daemon.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, it } from 'vitest';

import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { someOf } from '../helpers/seeds.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const MIB = 2 ** 20;
const FORMATS = ['luks', 'qcow2'] as const;
type Format = (typeof FORMATS)[number];
/** By default one of them. */
const part = (turn: number): readonly Format[] => someOf(FORMATS, 2, turn);
let luks: Uint8Array;
let qcow2: Uint8Array;

const add = (options: Line): string => command('blockdev-add', options);
const jobs = command('query-jobs');
const graph = command('x-debug-query-block-graph');
const dismiss = (id = 'j'): string => command('job-dismiss', { id });
const nullNode = (name: string, size: number): string =>
  add({ driver: 'null-co', 'node-name': name, size });

const node = (format: Format, name: string, file: string): Line => ({
  driver: format, 'node-name': name, file,
  ...(format === 'luks'
    ? { 'key-secret': 's0' }
    : { encrypt: { format: 'luks', 'key-secret': 's0' } }),
});

function amend(format: Format, members: Line, more: Line = {}, until?: string): Step {
  const options =
    format === 'luks'
      ? { driver: format, ...members }
      : { driver: format, encrypt: { format: 'luks', ...members } };
  const args = { 'job-id': 'j', 'node-name': 'n', options, ...more };
  const id = args['job-id'];
  return untilEvent(until ?? `concluded ${id} or null ${id}`, 'x-blockdev-amend', args);
}

const erase = (format: Format, keyslot: number, more: Line = {}): Step[] => [
  amend(format, { state: 'inactive', keyslot }, more),
  jobs,
  dismiss(),
];

function start(directory: string, format: Format): Step[] {
  const secret = (id: string, data: string): string =>
    command('object-add', { 'qom-type': 'secret', id, data });
  const file = (name: string): string =>
    add({ driver: 'file', 'node-name': name, filename: join(directory, name) });
  return [
    hello,
    secret('s0', 'first'),
    secret('s1', 'second'),
    file('f'),
    file('g'),
    add(node(format, 'n', 'f')),
    add(node(format, 'o', 'g')),
  ];
}

/** Whether the answer of a command comes before the events of its job is chance. */
function withoutEmptyReplies(line: Line): Line | null {
  return JSON.stringify(line) === '{"return":{}}' ? null : namesInOneOrder(line);
}

const play = (format: Format, makeSteps: (directory: string) => Step[]): Promise<void> =>
  compare(
    (directory) => [...start(directory, format), ...makeSteps(directory)],
    withoutEmptyReplies,
    (directory) => {
      const image = format === 'luks' ? luks : qcow2;
      for (const name of ['f', 'g']) writeFileSync(join(directory, name), image);
    },
  );

describe.skipIf(!hasReference)('a change of keyslots among others, as in a real daemon', () => {
  beforeAll(async () => {
    const passwords = ['first', undefined, 'second', 'third', 'fourth'];
    luks = (await makeLuks(passwords, { payload: MIB })).bytes;
    qcow2 = inQcow2(luks.subarray(0, luks.length - MIB));
  });

  it.each(part(0))('of %s: a job that has ended takes one order, and keeps its name', (format) =>
    play(format, () => [
      amend(format, { state: 'inactive', keyslot: 2 }),
      ...['pause', 'resume', 'complete', 'finalize', 'cancel'].map((verb) =>
        command(`job-${verb}`, { id: 'j' }),
      ),
      ...['pause', 'resume', 'complete', 'cancel'].map((verb) =>
        command(`block-job-${verb}`, { device: 'j' }),
      ),
      ...['finalize', 'dismiss'].map((verb) => command(`block-job-${verb}`, { id: 'j' })),
      command('block-job-set-speed', { device: 'j', speed: 1 }),
      command('query-block-jobs'),
      ...erase(format, 3),
      amend(format, { state: 'inactive', keyslot: 3 }, { 'job-id': 'k' }),
      amend(format, { state: 'inactive', keyslot: 3 }, { 'job-id': 'x' }),
      amend(format, { state: 'inactive', keyslot: 3 }, { 'job-id': 'y', 'node-name': 'o' }),
      jobs,
      ...['k', 'x', 'x', 'y'].map(dismiss),
      command('transaction', { actions: [{ type: 'x-blockdev-amend', data: {} }] }),
      graph,
    ]));

  it.each(part(1))('of %s: jobs that read the image go on, who reads the file refuses', (format) =>
    play(format, () => {
      const size = format === 'luks' ? luks.length : qcow2.length;
      const mirror = (device: string, target: string): Step =>
        untilEvent('ready m', 'blockdev-mirror', {
          'job-id': 'm', device, target, sync: 'none',
        });
      const end = untilEvent('null m', 'job-cancel', { id: 'm' });
      return [
        nullNode('z', MIB),
        nullNode('y', size),
        mirror('n', 'z'),
        ...erase(format, 2),
        end,
        mirror('f', 'y'),
        graph,
        ...erase(format, 3),
        end,
        untilEvent('null b', 'blockdev-backup', {
          'job-id': 'b', device: 'n', target: 'z', sync: 'full',
        }),
        ...erase(format, 3, { force: true }),
      ];
    }));

  it.each(part(0))('of %s: nodes above it let it pass, and are not meant', (format) =>
    play(format, () => [
      add({ driver: 'copy-on-read', 'node-name': 'c', file: 'n' }),
      ...erase(format, 2),
      ...erase(format, 3, { 'node-name': 'c' }),
      ...erase(format, 3, { 'node-name': 'f' }),
      amend(format, {}, { 'node-name': 'c', options: { driver: 'copy-on-read' } }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b' }),
      ...erase(format, 3),
      command('object-add', { 'qom-type': 'throttle-group', id: 't' }),
      add({ driver: 'throttle', 'node-name': 'h', file: 'f', 'throttle-group': 't' }),
      graph,
      ...erase(format, 4),
      command('blockdev-reopen', {
        options: [{ ...node(format, 'n', 'f'), 'read-only': true }],
      }),
      command('blockdev-reopen', { options: [node(format, 'n', 'f')] }),
      ...erase(format, 4),
      command('query-named-block-nodes', { flat: true }),
    ]));

  // What the schema of jobs says of each verb and status, of type `amend`. The rate of its writes
  // holds the job, until a drain lets them pass.
  const ENDS = ['goes on', 'is cancelled', 'is paused and cancelled', 'ends with all'] as const;
  const cases = FORMATS.flatMap((format) => ENDS.map((end) => [format, end] as const));
  it.each(someOf(cases, 5, 1))(
    'of %s: a job at work takes the orders that its status allows, and %s',
    (format, end) =>
      play(format, () => {
        const verb = (name: string): string => command(`job-${name}`, { id: 'j' });
        const drain = command('blockdev-reopen', { options: [node(format, 's', 'h')] });
        const slow = { 'qom-type': 'throttle-group', id: 't', limits: { 'bps-write': 1 } };
        const orders = { 'is cancelled': ['cancel', 'cancel'], 'goes on': [] };
        const last = { ...orders, 'is paused and cancelled': ['pause', 'cancel'] };
        return [
          command('blockdev-del', { 'node-name': 'n' }),
          command('object-add', slow),
          add({ driver: 'throttle', 'node-name': 'h', file: 'f', 'throttle-group': 't' }),
          add(node(format, 's', 'h')),
          amend(format, { state: 'inactive', keyslot: 2 }, { 'node-name': 's' }, 'running j'),
          jobs,
          ...['pause', 'pause', 'resume', 'resume', 'complete', 'finalize', 'dismiss'].flatMap(
            (name) => [verb(name), jobs],
          ),
          command('query-block-jobs'),
          amend(format, { state: 'inactive', keyslot: 3 }, { 'node-name': 's' }),
          command('object-del', { id: 's0' }),
          command('object-del', { id: 't' }),
          command('blockdev-del', { 'node-name': 'h' }),
          ...(end === 'ends with all'
            ? [command('quit')]
            : [{ send: [...last[end].map(verb), drain].join('\n'), until: 'concluded j' }]),
          // Whether a job that is cancelled at once has begun to write is chance.
          ...(end === 'ends with all' ? [] : [jobs, verb('dismiss'), jobs]),
          ...(end === 'goes on' ? [command('query-named-block-nodes', { flat: true })] : []),
        ];
      }),
  );
});
