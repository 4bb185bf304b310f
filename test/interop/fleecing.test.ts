// SPDX-License-Identifier: Apache-2.0
// The fleecing story on real files, told here and by a real daemon: a job overwrites a disk through
// copy-before-write, another one copies the snapshot. Answers, events and bytes are compared.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';

import { nativeAddon } from '../../src/host/index.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { hasReference, hello, isDrainPause, namesInOneOrder } from '../helpers/reference.js';
import { command, playAll, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const IMAGES = ['disk', 'new', 'scratch', 'copy'] as const;

function img(...args: readonly string[]): string {
  return execFileSync(peer('qemu-img') as string, args, { encoding: 'utf8' });
}

/** `disk` is the disk, `new` what it is overwritten with; both with holes of their own. */
function makeImages(folder: string): void {
  for (const name of [...IMAGES, 'before']) {
    img('create', '-q', '-f', 'qcow2', join(folder, `${name}.qcow2`), '4M');
  }
  const write = (name: string, ...writes: readonly string[]): void => {
    const commands = writes.flatMap((each) => ['-c', `write ${each}`]);
    execFileSync(peer('qemu-io') as string, [...commands, join(folder, `${name}.qcow2`)]);
  };
  const old = ['-P 17 0 1M', '-P 18 1500k 700k', '-P 19 3M 512'];
  write('disk', ...old);
  write('before', ...old);
  write('new', '-P 33 512k 2M', '-P 34 3500k 100k');
}

const add = (options: Line): string => command('blockdev-add', options);

function pieces(folder: string, filter: Line): Step[] {
  const node = (name: string): string =>
    add({
      driver: 'qcow2',
      'node-name': name,
      discard: 'unmap',
      file: { driver: 'file', filename: join(folder, `${name}.qcow2`) },
    });
  return [
    hello,
    ...IMAGES.map(node),
    command('block-dirty-bitmap-add', { node: 'disk', name: 'chosen' }),
    add({
      driver: 'copy-before-write',
      'node-name': 'cbw',
      file: 'disk',
      target: 'scratch',
      ...filter,
    }),
    add({ driver: 'snapshot-access', 'node-name': 'then', file: 'cbw' }),
  ];
}

function backup(device: string, target: string, more: Line = {}): Step {
  return untilEvent(`concluded ${device}`, 'blockdev-backup', {
    'job-id': device, device, target, sync: 'full', 'auto-dismiss': false, ...more,
  });
}

const counts = command('query-named-block-nodes', { flat: true });

/** What was said, and the folder as it was left, by both. */
async function playBoth(
  makeSteps: (folder: string) => readonly Step[],
  look: (folder: string) => void,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'fleecing-'));
  const play = async (socket: Socket): Promise<unknown> => {
    const record = await playAll(socket, makeSteps(folder));
    return record.map(({ step, said }) => ({
      step,
      said: said
        .filter((line) => !isDrainPause(line))
        .map(namesInOneOrder)
        // How far a job gets before its command is answered is chance.
        .toSorted((a, b) => Number('return' in b) - Number('return' in a)),
    }));
  };
  try {
    makeImages(folder);
    let theirs: unknown;
    {
      await using real = await startRealDaemon(peer('qemu-storage-daemon') as string, folder);
      theirs = await play(real.socket);
    }
    look(folder);
    makeImages(folder);
    let ours: unknown;
    {
      await using own = await startOwnDaemon(folder);
      void own.engine.quitRequested.then(() => own.server.close());
      ours = await play(await own.connect());
    }
    look(folder);
    expect(ours).toEqual(theirs);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function same(folder: string, left: string, right: string): void {
  expect(img('compare', join(folder, left), join(folder, right))).toBe('Images are identical.\n');
}

const quit = command('quit');
const dismiss = (id: string): string => command('job-dismiss', { id });

describe.skipIf(!hasReference)('fleecing, here and with a real daemon', () => {
  it('the copy of the snapshot is the disk of before, and the disk is the new one', () =>
    playBoth(
      (folder) => [
        ...pieces(folder, {}),
        backup('new', 'cbw'),
        counts,
        backup('then', 'copy'),
        counts,
        dismiss('new'),
        dismiss('then'),
        quit,
      ],
      (folder) => {
        same(folder, 'copy.qcow2', 'before.qcow2');
        same(folder, 'disk.qcow2', 'new.qcow2');
      },
    ));

  it('with a bitmap a copy of all ends at the first unit that is not in it', () =>
    playBoth(
      (folder) => [
        ...pieces(folder, { bitmap: { node: 'disk', name: 'chosen' } }),
        backup('new', 'cbw'),
        counts,
        backup('then', 'copy'),
        command('query-jobs'),
        counts,
        quit,
      ],
      (folder) => {
        same(folder, 'disk.qcow2', 'new.qcow2');
        expect(img('map', '--output=json', join(folder, 'scratch.qcow2'))).not.toContain(
          '"data": true',
        );
      },
    ));

  it('a target that fails breaks the write of the guest', () =>
    playBoth(
      (folder) => [
        ...pieces(folder, {}).slice(0, -2),
        add({
          driver: 'blkdebug',
          'node-name': 'bad',
          image: 'scratch',
          'inject-error': [{ event: 'none', iotype: 'write', errno: 28, sector: 2048 }],
        }),
        ...pieces(folder, { target: 'bad' }).slice(-2),
        // One request after the other, so that the same one meets the fault.
        backup('new', 'cbw', { 'x-perf': { 'max-workers': 1, 'max-chunk': 65_536 } }),
        command('query-jobs'),
        backup('then', 'copy'),
        command('query-jobs'),
        quit,
      ],
      (folder) => same(folder, 'copy.qcow2', 'before.qcow2'),
    ));

  it('a target that fails breaks the snapshot, and the job that reads it', () =>
    playBoth(
      (folder) => [
        ...pieces(folder, {}).slice(0, -2),
        add({
          driver: 'blkdebug',
          'node-name': 'bad',
          image: 'scratch',
          'inject-error': [{ event: 'none', iotype: 'write', errno: 28 }],
        }),
        ...pieces(folder, { target: 'bad', 'on-cbw-error': 'break-snapshot' }).slice(-2),
        backup('new', 'cbw'),
        backup('then', 'copy'),
        command('query-jobs'),
        quit,
      ],
      (folder) => same(folder, 'disk.qcow2', 'new.qcow2'),
    ));
});

describe.skipIf(!hasReference)('fleecing with discard-source, which the reference has not', () => {
  it('leaves nothing in the image that old data was kept in, and a sound one', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'fleecing-'));
    const scratch = join(folder, 'scratch.qcow2');
    try {
      makeImages(folder);
      await using own = await startOwnDaemon(folder);
      void own.engine.quitRequested.then(() => own.server.close());
      const steps = pieces(folder, {}).slice(0, -1);
      const then = { driver: 'snapshot-access', 'node-name': 'then', file: 'cbw' };
      steps.push(add({ ...then, discard: 'unmap' }), backup('new', 'cbw'));
      await playAll(await own.connect(), steps);
      expect(statSync(scratch).blocks * 512).toBeGreaterThan(1.5 * 2 ** 20);
      const discards = backup('then', 'copy', { 'discard-source': true });
      await playAll(await own.connect(), [hello, discards, quit]);
      same(folder, 'copy.qcow2', 'before.qcow2');
      same(folder, 'disk.qcow2', 'new.qcow2');
      const { blocks } = statSync(scratch);
      if (nativeAddon() !== null) expect(blocks * 512).toBeLessThan(2 ** 20);
      expect(img('map', '--output=json', scratch)).not.toContain('"data": true');
      expect(img('check', scratch)).toContain('No errors were found on the image.');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
