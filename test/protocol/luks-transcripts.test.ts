// SPDX-License-Identifier: Apache-2.0
// LUKS nodes as a real daemon has them: made, opened, resized, reopened, used by two at once, and
// copied by jobs. What is chance (salts, identifiers, measured iterations) is left out.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { makeLuks } from '../helpers/luks-images.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { command, playAll, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const img = peer('qemu-img');

const secret = (id: string, data: string): string =>
  command('object-add', { 'qom-type': 'secret', id, data });
const add = (options: Line): string => command('blockdev-add', options);
const luks = (more: Line = {}): Line => ({
  driver: 'luks', 'node-name': 'l', 'key-secret': 's0', file: 'f', ...more,
});
const file = (directory: string, name = 'a.luks'): string =>
  add({ driver: 'file', 'node-name': 'f', filename: join(directory, name) });

/** Every attempt is one job, told by what it has come to. */
function create(more: Line): Step[] {
  const options = { driver: 'luks', file: 'f', size: 1048576, ...more };
  return [
    untilEvent('concluded c', 'blockdev-create', { 'job-id': 'c', options }),
    command('query-jobs'),
    command('job-dismiss', { id: 'c' }),
  ];
}

const withoutEvents = (line: Line): Line | null =>
  'event' in line ? null : namesInOneOrder(line);

/** The same image for both, put back before each of them begins. */
async function placed(
  makeSteps: (directory: string) => readonly Step[],
  filter = withoutEvents,
): Promise<void> {
  const { bytes } = await makeLuks(['pw']);
  await compare((directory) => {
    writeFileSync(join(directory, 'a.luks'), bytes);
    return makeSteps(directory);
  }, filter);
}

describe.skipIf(!hasReference)('LUKS nodes as a real daemon has them', () => {
  it('what cannot be made is refused in the same words', () =>
    compare(
      (directory) => {
        writeFileSync(join(directory, 'a.luks'), '');
        const group = { 'qom-type': 'throttle-group', id: 't0' };
        return [
          hello,
          secret('s0', 'pw'),
          command('object-add', group),
          file(directory),
          ...create({}),
          ...create({ 'key-secret': 'gone' }),
          ...create({ 'key-secret': 't0' }),
          command('blockdev-create', {
            'job-id': 'c', options: { driver: 'luks', file: 'f', size: 1, 'cipher-alg': 'foo' },
          }),
          command('blockdev-create', { 'job-id': 'c', options: { driver: 'luks', file: 'f' } }),
        ];
      },
      withoutEvents,
    ));

  it('a node is opened, resized, reopened and described in the same words', () =>
    placed((directory) => [
      hello,
      secret('s0', 'pw'),
      secret('s1', 'no'),
      command('object-add', { 'qom-type': 'throttle-group', id: 't0' }),
      file(directory),
      ...[undefined, 'gone', 't0', 's1'].map((id) => add(luks({ 'key-secret': id }))),
      add(luks()),
      add(luks()),
      command('query-named-block-nodes', { flat: true }),
      command('object-del', { id: 's0' }),
      ...[131_072, 1000, 0, 65_536].map((size) =>
        command('block_resize', { 'node-name': 'l', size }),
      ),
      command('blockdev-reopen', { options: [luks({ 'read-only': true })] }),
      command('block_resize', { 'node-name': 'l', size: 512 }),
      command('blockdev-reopen', { options: [luks({ 'key-secret': 'other' })] }),
      command('blockdev-reopen', { options: [luks({ 'key-secret': undefined })] }),
      command('blockdev-reopen', { options: [luks()] }),
      command('blockdev-snapshot-internal-sync', { device: 'l', name: 'x' }),
      command('block-dirty-bitmap-add', { node: 'l', name: 'b', persistent: true }),
      command('block-dirty-bitmap-add', { node: 'l', name: 'b' }),
      command('x-debug-query-block-graph'),
      command('blockdev-del', { 'node-name': 'f' }),
      command('blockdev-del', { 'node-name': 'l' }),
    ]));

  it('two nodes may use one image as two may use any file', () =>
    placed((directory) => {
      for (const name of ['x', 'y']) writeFileSync(join(directory, name), new Uint8Array(65_536));
      const plain = (name: string): string =>
        add({ driver: 'file', 'node-name': name, filename: join(directory, name) });
      const mirror = (device: string, target: string): Step =>
        untilEvent('BLOCK_JOB_READY', 'blockdev-mirror', {
          'job-id': device, device, target, sync: 'full',
        });
      return [
        hello,
        secret('s0', 'pw'),
        file(directory),
        plain('x'),
        plain('y'),
        add(luks()),
        mirror('x', 'l'),
        command('x-debug-query-block-graph'),
        add(luks({ 'node-name': 'm', 'read-only': true })),
        add(luks({ 'node-name': 'n' })),
        mirror('y', 'n'),
        command('x-debug-query-block-graph'),
      ];
    }));
});

describe.skipIf(img === null)('jobs on LUKS nodes', () => {
  const SIZE = 131_072;

  /** Plays the steps in a directory with `plain` and images `a.luks` and `b.luks`. */
  async function played(
    makeSteps: (directory: string) => readonly Step[],
    judge: (directory: string) => void,
  ): Promise<void> {
    const directory = mkdtempSync(join(tmpdir(), 'luks-jobs-'));
    try {
      const { bytes } = await makeLuks(['pw'], { payload: SIZE });
      for (const name of ['a.luks', 'b.luks']) writeFileSync(join(directory, name), bytes);
      const plain = Uint8Array.from({ length: SIZE }, (_, at) => (at * 7 + (at >> 9)) & 255);
      writeFileSync(join(directory, 'plain'), plain.fill(0, 40_000, 80_000));
      const record = await (async () => {
        await using own = await startOwnDaemon(directory);
        return await playAll(await own.connect(), makeSteps(directory));
      })();
      const errors = record.flatMap(({ said }) => said.filter((line) => 'error' in line));
      expect(errors).toEqual([]);
      judge(directory);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  const encrypted = (directory: string, name: string): Line => ({
    driver: 'luks', 'node-name': name, 'key-secret': 's0',
    file: { driver: 'file', filename: join(directory, `${name}.luks`) },
  });
  const plainNode = (directory: string): Line => ({
    driver: 'raw', 'node-name': 'plain',
    file: { driver: 'file', filename: join(directory, 'plain') },
  });

  function expectPlain(directory: string, options: string): void {
    const out = execFileSync(
      img as string,
      [
        'compare', '--object', 'secret,id=s0,data=pw', '--image-opts', options,
        'driver=raw,file.filename=plain',
      ],
      { cwd: directory, encoding: 'utf8' },
    );
    expect(out).toBe('Images are identical.\n');
  }
  const opened = (name: string): string =>
    `driver=luks,key-secret=s0,file.filename=${name}.luks`;

  it('backup and mirror carry bytes into one image and from there into another', () =>
    played(
      (directory) => [
        hello,
        secret('s0', 'pw'),
        add(plainNode(directory)),
        add(encrypted(directory, 'a')),
        add(encrypted(directory, 'b')),
        untilEvent('concluded j', 'blockdev-backup', {
          'job-id': 'j', device: 'plain', target: 'a', sync: 'full', 'auto-dismiss': false,
        }),
        untilEvent('BLOCK_JOB_READY', 'blockdev-mirror', {
          'job-id': 'm', device: 'a', target: 'b', sync: 'full',
        }),
        untilEvent('BLOCK_JOB_COMPLETED', 'job-complete', { id: 'm' }),
      ],
      (directory) => {
        expectPlain(directory, opened('a'));
        expectPlain(directory, opened('b'));
        const [a, b] = ['a.luks', 'b.luks'].map((name) => readFileSync(join(directory, name)));
        expect(a?.equals(b ?? Buffer.alloc(0))).toBe(true);
      },
    ));

  it('stream reads an encrypted backing file, and commit writes to one', () =>
    played(
      (directory) => {
        const overlay = (name: string): Step[] => {
          const path = join(directory, `${name}.qcow2`);
          execFileSync(img as string, ['create', '-q', '-f', 'qcow2', path, String(SIZE)]);
          return [
            add({
              driver: 'qcow2', 'node-name': name, backing: name === 'over' ? 'a' : 'b',
              file: { driver: 'file', filename: path },
            }),
          ];
        };
        return [
          hello,
          secret('s0', 'pw'),
          add(plainNode(directory)),
          add(encrypted(directory, 'a')),
          add(encrypted(directory, 'b')),
          untilEvent('concluded j', 'blockdev-backup', {
            'job-id': 'j', device: 'plain', target: 'a', sync: 'full', 'auto-dismiss': false,
          }),
          ...overlay('over'),
          untilEvent('BLOCK_JOB_COMPLETED', 'block-stream', { 'job-id': 's', device: 'over' }),
          ...overlay('top'),
          untilEvent('concluded k', 'blockdev-backup', {
            'job-id': 'k', device: 'plain', target: 'top', sync: 'full', 'auto-dismiss': false,
          }),
          untilEvent('BLOCK_JOB_READY', 'block-commit', { 'job-id': 'c', device: 'top' }),
          untilEvent('BLOCK_JOB_COMPLETED', 'job-complete', { id: 'c' }),
        ];
      },
      (directory) => {
        expectPlain(directory, 'driver=qcow2,file.filename=over.qcow2');
        expectPlain(directory, opened('b'));
      },
    ));
});
