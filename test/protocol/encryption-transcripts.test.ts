// SPDX-License-Identifier: Apache-2.0
// Encrypted qcow2 images as a real daemon has them: opened with right and wrong options, described,
// reopened, snapshotted, and copied by jobs.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, it } from 'vitest';

import { inQcow2, makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { someOf } from '../helpers/seeds.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const MIB = 2 ** 20;
let image: Uint8Array;
let luksImage: Uint8Array;
let aesImage: Uint8Array;

const add = (options: Line): string => command('blockdev-add', options);
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const reopen = (options: Line): string => command('blockdev-reopen', { options: [options] });
const secret = (id: string, more: Line): string =>
  command('object-add', { 'qom-type': 'secret', id, ...more });
const nodes = command('query-named-block-nodes', { flat: true });
const graph = command('x-debug-query-block-graph');

const KEY = { format: 'luks', 'key-secret': 's0' };
const OLD_KEY = { format: 'aes', 'key-secret': 's0' };

const start: readonly Step[] = [
  hello,
  secret('s0', { data: 'pw' }),
  secret('s1', { data: 'wrong' }),
  secret('s2', { data: 'other' }),
  secret('u', { data: '/w==', format: 'base64' }),
  command('object-add', { 'qom-type': 'throttle-group', id: 't0' }),
];

/** Each image as node `NAME-file`. */
const files = (directory: string, ...names: string[]): Step[] =>
  names.map((name) =>
    add({ driver: 'file', 'node-name': `${name}-file`, filename: join(directory, name) }),
  );

const qcow2 = (name: string, more: Line = {}): Line => ({
  driver: 'qcow2', 'node-name': name, file: `${name}-file`, encrypt: KEY, ...more,
});

function withoutTimes(line: Line): Line {
  const text = JSON.stringify(namesInOneOrder(line), (key, value: unknown) =>
    /^(date|vm-clock)-n?sec$/.test(key) ? 0 : value,
  );
  return JSON.parse(text) as Line;
}

/** Whether the answer of the command comes before the events of its job is chance. */
function withoutEmptyReplies(line: Line): Line | null {
  return JSON.stringify(line) === '{"return":{}}' ? null : withoutTimes(line);
}

const play = (
  makeSteps: (directory: string) => readonly Step[],
  filter: (line: Line) => Line | null = withoutTimes,
): Promise<void> =>
  compare(makeSteps, filter, (directory) => {
    const put = (name: string, bytes: Uint8Array): void =>
      writeFileSync(join(directory, name), bytes);
    for (const name of ['a', 'b', 'c']) put(name, image);
    for (const name of ['l', 'other.luks']) put(name, luksImage);
    put('aes', aesImage);
    put('raw', new Uint8Array(MIB).fill(7, 100_000, 900_000));
  });

function madeByReference(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'encryption-'));
  try {
    const options = 'encrypt.format=aes,encrypt.key-secret=s0';
    const object = ['--object', 'secret,id=s0,data=pw'];
    const args = ['create', '-q', ...object, '-f', 'qcow2', '-o', options, 'aes', '1M'];
    execFileSync(peer('qemu-img') as string, args, { cwd: folder });
    return readFileSync(join(folder, 'aes'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe.skipIf(!hasReference)('encrypted qcow2 images, as a real daemon has them', () => {
  beforeAll(async () => {
    luksImage = (await makeLuks(['pw', undefined, 'other'], { payload: MIB })).bytes;
    image = inQcow2(luksImage.subarray(0, luksImage.length - MIB));
    aesImage = madeByReference();
  });

  it('they open with the right format and secret, and tell of their keyslots', () =>
    play((directory) => {
      const filename = (name: string): string => join(directory, name);
      const open = (name: string, encrypt: unknown, more: Line = {}): Step[] => [
        add({
          driver: 'qcow2', 'node-name': 'n', encrypt,
          file: { driver: 'file', filename: filename(name) }, ...more,
        }),
        nodes,
        del('n'),
      ];
      const luks = (more: Line): string =>
        add({
          driver: 'luks', 'node-name': 'n', 'key-secret': 's0',
          file: { driver: 'file', filename: filename('l') }, ...more,
        });
      const locked = { driver: 'file', filename: filename('l'), 'read-only': true };
      const opened = [
        ...[
          undefined, {}, { format: 'luks' }, { format: 'aes' }, OLD_KEY, 5, null, 'luks',
          { format: 'qcow', 'key-secret': 's0' }, { 'key-secret': 's0' },
          { ...KEY, 'cipher-alg': 'aes-128' }, { ...KEY, detached: true },
        ].map((encrypt) => open('a', encrypt)),
        ...['s0', 's1', 's2', 'u', 't0', 'gone', ''].map((id) =>
          open('a', { ...KEY, 'key-secret': id }),
        ),
        open('a', KEY, { 'read-only': true }),
        open('a', KEY, { discard: 'unmap', 'detect-zeroes': 'unmap', backing: null }),
        open('a', OLD_KEY, { 'l2-cache-size': 5, 'cache-size': 3 }),
        ...[undefined, { format: 'aes' }, KEY, { format: 'luks' }].map((encrypt) =>
          open('aes', encrypt),
        ),
        ...['s0', 's1', 'u', 't0', 'gone'].map((id) =>
          open('aes', { ...OLD_KEY, 'key-secret': id }),
        ),
        ...[KEY, { format: 'luks' }, OLD_KEY].map((encrypt) => open('base.qcow2', encrypt)),
      ];
      return [
        ...start,
        ...someOf(opened, 4).flat(),
        add({ driver: 'raw', 'node-name': 'n', file: 'x', encrypt: { format: 'luks' } }),
        luks({ file: { driver: 'file', filename: filename('a') } }),
        luks({ encrypt: {} }),
        luks({ 'key-secret': 5 }),
        luks({ 'key-secret': 'u' }),
        luks({ file: locked }),
        luks({ file: locked, 'auto-read-only': true }),
        nodes,
        command('query-block'),
        command('query-blockstats', { 'query-nodes': true }),
      ];
    }));

  it('names say by which secret the images below open', () =>
    play((directory) => {
      const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
      const over = (backing: Line): Step[] => [
        add({ driver: 'qcow2', 'node-name': 'top', file: file('copy.qcow2'), backing }),
        nodes,
        command('query-named-block-nodes'),
        del('top'),
      ];
      return [
        ...start,
        ...over({ driver: 'luks', file: file('l'), 'key-secret': 's0' }),
        ...over({ driver: 'qcow2', file: file('a'), encrypt: KEY }),
        ...over({ driver: 'qcow2', file: file('aes'), encrypt: OLD_KEY }),
      ];
    }));

  it('a reopen keeps the format, wants a secret named, and tries none', () =>
    play((directory) => {
      const aes = (more: Line): Line => qcow2('aes', { encrypt: OLD_KEY, ...more });
      const amended = (members: Line): Step[] => [
        untilEvent('concluded j', 'x-blockdev-amend', {
          'job-id': 'j', 'node-name': 'a',
          options: { driver: 'qcow2', encrypt: { format: 'luks', ...members } },
        }),
        command('query-jobs'),
        command('job-dismiss', { id: 'j' }),
      ];
      return [
        ...start,
        ...files(directory, 'a', 'b', 'aes', 'copy.qcow2'),
        add(qcow2('a')),
        add(aes({})),
        add(qcow2('copy.qcow2', { encrypt: undefined })),
        ...[{ format: 'luks' }, OLD_KEY, { format: 'aes' }, {}, 5, undefined].map((encrypt) =>
          reopen(qcow2('a', { encrypt })),
        ),
        ...[{ format: 'aes' }, KEY, undefined].map((encrypt) => reopen(aes({ encrypt }))),
        ...[KEY, { format: 'luks' }].map((encrypt) => reopen(qcow2('copy.qcow2', { encrypt }))),
        reopen(aes({ 'read-only': true })),
        reopen(qcow2('a', { encrypt: OLD_KEY, 'l2-cache-size': 5, 'cache-size': 3 })),
        reopen(qcow2('a', { file: 'b-file' })),
        ...['s2', 's1', 'gone'].flatMap((id) => {
          const encrypt = { ...KEY, 'key-secret': id };
          return [
            reopen(qcow2('a', { encrypt, 'read-only': true })),
            nodes,
            reopen(qcow2('a', { encrypt, 'lazy-refcounts': true })),
            nodes,
            // The key is taken out with the secret that opened the image.
            ...amended({ state: 'active', 'new-secret': 'none' }),
          ];
        }),
        command('object-del', { id: 's0' }),
        reopen(qcow2('a')),
        nodes,
      ];
    }, withoutEmptyReplies));

  it('overlays, snapshots and sizes go on below and above encryption', () =>
    play((directory) => {
      const taken = (node: string, name: string, format = 'qcow2'): Step[] => [
        command('blockdev-snapshot-sync', {
          'node-name': node, 'snapshot-node-name': name, format,
          'snapshot-file': join(directory, `made-${name}`),
        }),
        nodes,
      ];
      return [
        ...start,
        ...files(directory, 'a', 'b', 'l'),
        add({ driver: 'luks', 'node-name': 'l', 'key-secret': 's0', file: 'l-file' }),
        add(qcow2('a', { backing: null })),
        add(qcow2('b', { backing: null })),
        command('blockdev-snapshot', { node: 'a', overlay: 'b' }),
        graph,
        command('blockdev-snapshot', { node: 'l', overlay: 'a' }),
        command('blockdev-snapshot-internal-sync', { device: 'b', name: 'x' }),
        nodes,
        command('blockdev-snapshot-delete-internal-sync', { device: 'b', name: 'x' }),
        ...taken('b', 'n'),
        ...taken('l', 'm'),
        ...taken('m', 'o', 'luks'),
        command('block-dirty-bitmap-add', { node: 'b', name: 'b', persistent: true }),
        ...['b', 'n'].map((name) =>
          command('block_resize', { 'node-name': name, size: 2 * MIB }),
        ),
        graph,
      ];
    }));

  it('jobs write to them and read them as any image', () =>
    play((directory) => {
      const ended = (verb: string, args: Line): Step[] => [
        untilEvent('concluded j', verb, { 'job-id': 'j', 'auto-dismiss': false, ...args }),
        command('query-jobs'),
        command('job-dismiss', { id: 'j' }),
      ];
      const drive = (device: string, target: string, more: Line): Step[] =>
        ended('drive-backup', {
          device, target: join(directory, target), format: 'qcow2', sync: 'full', ...more,
        });
      return [
        ...start,
        ...files(directory, 'a', 'b', 'c', 'l', 'raw'),
        add({ driver: 'luks', 'node-name': 'l', 'key-secret': 's0', file: 'l-file' }),
        add({ driver: 'raw', 'node-name': 'r', file: 'raw-file' }),
        add(qcow2('a', { backing: null })),
        add(qcow2('b', { backing: 'a' })),
        add(qcow2('c', { backing: null })),
        ...ended('blockdev-backup', { device: 'r', target: 'c', sync: 'full' }),
        ...ended('blockdev-backup', { device: 'r', target: 'l', sync: 'full', compress: true }),
        untilEvent('ready j', 'blockdev-mirror', {
          'job-id': 'j', device: 'r', target: 'l', sync: 'full', 'auto-dismiss': false,
        }),
        untilEvent('concluded j', 'job-complete', { id: 'j' }),
        command('job-dismiss', { id: 'j' }),
        ...ended('block-stream', { device: 'b' }),
        nodes,
        ...drive('l', 'new', {}),
        ...drive('b', 'new.luks', { format: 'luks' }),
        ...drive('b', 'other.luks', { format: 'luks', mode: 'existing' }),
        ...drive('l', 'a', { mode: 'existing' }),
        graph,
      ];
    }, withoutEmptyReplies));
});
