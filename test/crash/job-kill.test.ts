// SPDX-License-Identifier: Apache-2.0
// SIGKILL of our daemon right after each thing that it says of a job: its answer, READY, PENDING,
// concluded, dismissed, the end of one job of a group. The real qemu-img finds images clean but for
// leaks, no byte of the guest's view lost, and all that was reported finished.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QmpEvent } from '../../src/client/index.js';
import { peer } from '../helpers/peers.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import type { ProgramDaemon } from '../helpers/program-daemon.js';
import { someOf } from '../helpers/seeds.js';

const qemuImg = peer('qemu-img') ?? '';
const qemuIo = peer('qemu-io') ?? '';
const program = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const usable = qemuImg !== '' && qemuIo !== '' && existsSync(program);

type Arguments = Readonly<Record<string, unknown>>;
type Check = (disk: Disk) => void;

/** A word of the daemon: the answer to the command, or the first event that fits. */
interface Moment {
  readonly name: string;
  /** Null: the answer. */
  fits: ((event: QmpEvent) => boolean) | null;
}

function status(name: string, job = 'j'): Moment {
  return {
    name: job === 'j' ? name : `${name} of ${job}`,
    fits: ({ event, data }) =>
      event === 'JOB_STATUS_CHANGE' && data['status'] === name && data['id'] === job,
  };
}

const ANSWER: Moment = { name: 'answer', fits: null };
const UNDER_WAY = [ANSWER, ...['running', 'waiting', 'pending'].map((name) => status(name))];
const READY: Moment = { name: 'BLOCK_JOB_READY', fits: ({ event }) => event === 'BLOCK_JOB_READY' };
const ENDED: readonly Moment[] = [
  { name: 'BLOCK_JOB_COMPLETED', fits: ({ event }) => event === 'BLOCK_JOB_COMPLETED' },
  status('concluded'),
  status('null'),
];

interface JobKind {
  readonly name: string;
  readonly command: readonly [string, Arguments];
  /** More moments at which it is under way. */
  readonly also?: readonly Moment[];
  /** What must be so once it has ended. */
  readonly ended: Check;
  /** The guest is on another image once the job has ended. */
  readonly moves?: true;
}

class Disk {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  img(...args: string[]): string {
    return execFileSync(qemuImg, args, { cwd: this.folder, encoding: 'utf8' });
  }

  io(file: string, ...commands: string[]): void {
    const args = ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), file];
    execFileSync(qemuIo, args, { cwd: this.folder });
  }

  /** Reads as `view.raw` does. */
  expectView(file: string, view = 'view.raw'): void {
    expect(this.img('compare', '-F', 'qcow2', view, file)).toContain('Images are identical');
  }

  expectSound(): void {
    for (const file of NAMES) {
      // 3 = leaked clusters only, 0 = clean.
      const check = spawnSync(qemuImg, ['check', `${file}.qcow2`], { cwd: this.folder });
      expect([0, 3], `${file}: ${String(check.stdout)}`).toContain(check.status);
    }
  }

  backingOf(file: string): string | undefined {
    const facts = JSON.parse(this.img('info', '--output=json', file)) as {
      readonly 'backing-filename'?: string;
    };
    return facts['backing-filename']?.split('/').at(-1);
  }
}

const id = { 'job-id': 'j' } as const;
const toCopy = { device: 'top', target: 'copy', sync: 'full' } as const;
const increment = {
  ...id, device: 'top', target: 'increment', sync: 'incremental', bitmap: 'changes',
} as const;

function group(...jobs: readonly Arguments[]): readonly [string, Arguments] {
  const actions = jobs.map((data) => ({ type: 'blockdev-backup', data }));
  return ['transaction', { actions, properties: { 'completion-mode': 'grouped' } }];
}

const KINDS: readonly JobKind[] = [
  {
    name: 'a stream',
    command: ['block-stream', { ...id, device: 'top' }],
    ended: (disk) => expect(disk.backingOf('top.qcow2')).toBeUndefined(),
  },
  {
    name: 'a stream above a base',
    command: ['block-stream', { ...id, device: 'top', 'base-node': 'base' }],
    ended: (disk) => expect(disk.backingOf('top.qcow2')).toBe('base.qcow2'),
  },
  {
    name: 'a commit',
    command: ['block-commit', { ...id, device: 'top', 'top-node': 'mid' }],
    ended: (disk) => expect(disk.backingOf('top.qcow2')).toBe('base.qcow2'),
  },
  {
    name: 'an active commit',
    command: ['block-commit', { ...id, device: 'top' }],
    also: [READY],
    moves: true,
    ended: (disk) => disk.expectView('base.qcow2'),
  },
  {
    name: 'a mirror',
    command: ['blockdev-mirror', { ...id, ...toCopy }],
    also: [READY],
    ended: (disk) => disk.expectView('copy.qcow2'),
  },
  {
    name: 'a blocking mirror',
    command: ['blockdev-mirror', { ...id, ...toCopy, 'copy-mode': 'write-blocking' }],
    also: [READY],
    ended: (disk) => disk.expectView('copy.qcow2'),
  },
  {
    name: 'a backup',
    command: ['blockdev-backup', { ...id, ...toCopy }],
    ended: (disk) => disk.expectView('copy.qcow2'),
  },
  {
    name: 'an incremental backup',
    command: ['blockdev-backup', increment],
    ended: (disk) => disk.expectView('increment.qcow2'),
  },
  {
    name: 'a group of backups',
    command: group(increment, {
      'job-id': 'k', device: 'other', target: 'copy2', sync: 'full',
    }),
    also: [status('waiting', 'k'), status('concluded', 'k')],
    ended: (disk) => {
      disk.expectView('increment.qcow2');
      disk.expectView('copy2.qcow2', 'other.raw');
    },
  },
];

/** What a job has copied is on disk before it says that nothing is left to do. */
const COPIES_WHEN_DONE = new Map([
  ['a backup', 'copy.qcow2'],
  ['an incremental backup', 'increment.qcow2'],
  ['a mirror', 'copy.qcow2'],
  ['a blocking mirror', 'copy.qcow2'],
]);

function makeImages(disk: Disk): void {
  const create = (name: string, ...more: string[]): string =>
    disk.img('create', '-q', '-f', 'qcow2', ...more, `${name}.qcow2`, '8M');
  create('base');
  disk.io('base.qcow2', 'write -P 1 0 5M');
  create('mid', '-b', 'base.qcow2', '-F', 'qcow2');
  disk.io('mid.qcow2', 'write -P 2 1M 3M', 'write -z 5M 1M', 'write -P 9 7M 512');
  create('top', '-b', 'mid.qcow2', '-F', 'qcow2', '-o', 'cluster_size=4096');
  disk.io('top.qcow2', 'write -P 3 2M 64k');
  create('copy');
  create('copy2');
  create('other');
  disk.io('other.qcow2', 'write -P 7 3M 1M');
  disk.img('convert', '-O', 'raw', 'other.qcow2', 'other.raw');
  disk.img('convert', '-O', 'qcow2', 'top.qcow2', 'full.qcow2');
  create('increment', '-b', 'full.qcow2', '-F', 'qcow2');
  create('patch');
  const changes = ['write -P 4 1M 192k', 'write -z 6M 64k'];
  disk.io('patch.qcow2', ...changes);
  disk.img('convert', '-O', 'qcow2', 'top.qcow2', 'patched.qcow2');
  disk.io('patched.qcow2', ...changes);
  disk.img('convert', '-O', 'raw', 'patched.qcow2', 'view.raw');
}

const BACKING: Readonly<Record<string, string>> = { mid: 'base', top: 'mid', increment: 'full' };
const NAMES = ['base', 'mid', 'top', 'copy', 'copy2', 'other', 'full', 'increment', 'patch'];

function nodes(folder: string): string[] {
  return NAMES.flatMap((name) => {
    const file = { driver: 'file', filename: join(folder, `${name}.qcow2`) };
    const backing = BACKING[name] === undefined ? {} : { backing: BACKING[name] };
    const options = { driver: 'qcow2', 'node-name': name, file, ...backing };
    return ['--blockdev', JSON.stringify(options)];
  });
}

/** The top changes under a bitmap: what a backup of the patch writes to it. */
async function change({ client }: ProgramDaemon): Promise<void> {
  await client.execute('block-dirty-bitmap-add', { node: 'top', name: 'changes' });
  const patching = client.job('patching');
  await client.execute('blockdev-backup', {
    'job-id': 'patching', device: 'patch', target: 'top', sync: 'top',
  });
  expect(await patching.done).toMatchObject({ result: 'completed' });
}

/** Runs the job and ends the daemon the moment it says so; resolves when it is gone. */
async function killAt(daemon: ProgramDaemon, kind: JobKind, moment: Moment): Promise<void> {
  const { client } = daemon;
  let gone: Promise<unknown> | null = null;
  let tell = (): void => undefined;
  const said = new Promise<void>((resolve) => {
    tell = resolve;
  });
  client.onEvent((event) => {
    if (gone !== null) return;
    if (moment.fits?.(event) === true) {
      gone = daemon.end('SIGKILL');
      tell();
    } else if (event.event === 'BLOCK_JOB_READY') {
      client.execute('job-complete', { id: 'j' }).catch(() => undefined);
    }
  });
  const [name, args] = kind.command;
  const execute = client.execute.bind(client) as (name: string, args: object) => Promise<unknown>;
  const answered = execute(name, args);
  if (moment.fits === null) {
    await answered;
    gone = daemon.end('SIGKILL');
  } else {
    answered.catch(() => undefined);
    await said;
  }
  await gone;
}

function expectAllKept(disk: Disk, kind: JobKind, moment: Moment): void {
  const isOver = ENDED.includes(moment);
  disk.expectSound();
  if (isOver) kind.ended(disk);
  if (!(isOver && kind.moves === true)) disk.expectView('top.qcow2');
  const copy = COPIES_WHEN_DONE.get(kind.name);
  const isCopied = ['waiting', 'pending', 'BLOCK_JOB_READY'].includes(moment.name);
  if (copy !== undefined && isCopied) disk.expectView(copy);
}

describe.skipIf(!usable)('SIGKILL', () => {
  let template = '';

  beforeAll(() => {
    template = mkdtempSync(join(tmpdir(), 'kill-'));
    makeImages(new Disk(template));
  });
  afterAll(() => {
    rmSync(template, { recursive: true, force: true });
  });

  const all = KINDS.flatMap((kind) =>
    [...UNDER_WAY, ...(kind.also ?? []), ...ENDED].map((moment) => [kind, moment] as const),
  );
  for (const [kind, moment] of someOf(all, 9)) {
    it(`right after '${moment.name}' of ${kind.name} loses nothing`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'kill-'));
      try {
        cpSync(template, folder, { recursive: true });
        const daemon = await startProgramDaemon(folder, nodes(folder));
        await change(daemon);
        await killAt(daemon, kind, moment);
        expectAllKept(new Disk(folder), kind, moment);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});
