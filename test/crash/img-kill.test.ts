// SPDX-License-Identifier: Apache-2.0
// Command lines of img killed for good at any of their writes, on images with features of qcow2
// together: the real tools find leaks at most (lazy refcounts: none after a repair), the image as
// it was before or after, and every snapshot. BLOCKWRIGHT_CAMPAIGN=1 plays all lines.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { runIn } from '../helpers/command-line.js';
import type { Outcome } from '../helpers/command-line.js';
import { FEATURE_SIZE, VERB_CASES } from '../helpers/feature-cases.js';
import type { Features } from '../helpers/feature-stage.js';
import { LUKS_PASSWORD } from '../helpers/luks.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const MOST_EVENTS = 40;
const SECTOR = 512;
const KEY = ['--object', `secret,id=k,data=${LUKS_PASSWORD}`];
const KEYED = 'driver=qcow2,encrypt.key-secret=k,file.filename=top';
const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const KILLS = isCampaign ? 6 : 1;
/** No errors, or leaks alone. */
const SOUND = [0, 3];

const folder = mkdtempSync(join(tmpdir(), 'blockwright-img-kill-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/**
 * Names that begin with a slash are of this folder; an encrypted image goes by its options, and no
 * name is relative to that.
 */
function wordsOf(line: string, { encrypted }: Features, cwd: string): string[] {
  const [verb = '', ...rest] = line
    .split(' ')
    .map((word) => (word === "''" ? '' : word.replace(/^\//, '').replace('=/', '=')));
  if (encrypted !== true) return [verb, ...rest];
  const named: Readonly<Record<string, string>> = { top: KEYED, other: join(cwd, 'other') };
  return [verb, ...KEY, '--image-opts', ...rest.map((word) => named[word] ?? word)];
}

/** What the real tools take for an image. */
function imageWords(name: string, { encrypted }: Features): string[] {
  if (encrypted !== true || name !== 'top') return ['-f', 'qcow2', name];
  return [...KEY, '--image-opts', KEYED];
}

function real(cwd: string, program: 'qemu-img' | 'qemu-io', ...args: readonly string[]): void {
  const { err, out, status } = runIn(cwd, [peer(program) ?? '', ...args]);
  expect({ err, status }, `${args.join(' ')}: ${out}`).toEqual({ err: '', status: 0 });
}

function makeImages(cwd: string, features: Features, random: SeededRandom): void {
  const scribble = (name: string, size: number): void => {
    const lines = Array.from({ length: 6 }, () => {
      const offset = SECTOR * random.below(size / SECTOR);
      const length = Math.min(size - offset, SECTOR * (1 + random.below(70)));
      const what = random.below(4) === 0 ? '-z' : `-P ${1 + random.below(8)}`;
      return ['-c', `write -q ${what} ${offset} ${length}`];
    });
    real(cwd, 'qemu-io', ...lines.flat(), ...imageWords(name, features));
  };
  const make = (name: string, size: number, ...options: readonly string[]): void => {
    const words = ['create', '-q', '-f', 'qcow2', ...options, name, String(size)];
    if (features.encrypted !== true) real(cwd, 'qemu-img', ...words);
    // The real one measures for long how fast it derives keys, and fails in that now and then.
    else expect(ours(cwd, words.toSpliced(1, 0, ...KEY)).err).toBe('');
    scribble(name, size);
  };
  make('base', FEATURE_SIZE, '-o', 'cluster_size=4k');
  make('other', FEATURE_SIZE - 24_576, '-o', 'cluster_size=64k');
  const link = features.alone === true ? [] : ['-b', 'base', '-F', 'qcow2'];
  make('top', FEATURE_SIZE, '-o', features.options.replace('=/', '='), ...link);
  const top = imageWords('top', features);
  // The format of a name is guessed: `snapshot` takes none.
  const shot = features.encrypted === true ? top : ['top'];
  if (features.snapshot === true) real(cwd, 'qemu-img', 'snapshot', '-c', 's1', ...shot);
  scribble('top', FEATURE_SIZE);
  if (features.bitmap !== true) return;
  real(cwd, 'qemu-img', 'bitmap', '--add', '-g', '4096', ...top, 'b0');
}

/** What an image or one of its snapshots shows to the real tool. */
function viewOf(cwd: string, features: Features, ...choice: readonly string[]): Buffer {
  const top = imageWords('top', features);
  real(cwd, 'qemu-img', 'convert', '-U', '-O', 'raw', ...choice, ...top, 'view');
  return readFileSync(join(cwd, 'view'));
}

/** Ends with the program's end, which is a kill as soon as so many changes were seen. */
async function runKilled(cwd: string, words: readonly string[], events: number): Promise<void> {
  const watcher = watch(cwd);
  const child = spawn(process.execPath, [PROGRAM, 'img', ...words], { cwd, stdio: 'ignore' });
  let seen = 0;
  watcher.on('change', () => {
    seen += 1;
    if (seen === events) child.kill('SIGKILL');
  });
  const [status, signal] = (await once(child, 'exit')) as [number | null, string | null];
  watcher.close();
  expect(signal ?? status).toBe(signal === null ? 0 : 'SIGKILL');
}

function requireSound(cwd: string, isLazy: boolean, features: Features): void {
  const bytes = readFileSync(join(cwd, 'top'));
  const isDirty = bytes.readUInt32BE(4) >= 3 && (bytes.readUInt8(79) & 1) !== 0;
  expect(isDirty && !isLazy).toBe(false);
  // The reference's own repair may drop the snapshots of a sound image.
  if (isDirty) expect(ours(cwd, wordsOf('check -q -r all /top', features, cwd)).status).toBe(0);
  const words = ['check', '-q', ...imageWords('top', features)];
  const check = runIn(cwd, [peer('qemu-img') ?? '', ...words]);
  expect(SOUND, check.out).toContain(check.status);
}

function ours(cwd: string, words: readonly string[]): Outcome {
  return runIn(cwd, [process.execPath, PROGRAM, 'img', ...words]);
}

const isPossible = peer('qemu-img') !== null && peer('qemu-io') !== null;

describe('img killed at any of its writes', () => {
  it.skipIf(!isPossible).each(someOf(VERB_CASES, 46))(
    '$line on an image with $name',
    async ({ line, name, features, verb, seed }) => {
      const random = new SeededRandom(seed + name.length);
      const first = join(folder, 'first');
      rmSync(first, { recursive: true, force: true });
      mkdirSync(first);
      makeImages(first, features, random);
      const before = viewOf(first, features);
      const snapshot = features.snapshot === true ? viewOf(first, features, '-l', 's1') : null;
      for (let kill = 0; kill < KILLS; kill += 1) {
        const cwd = join(folder, 'killed');
        rmSync(cwd, { recursive: true, force: true });
        cpSync(first, cwd, { recursive: true });
        await runKilled(cwd, wordsOf(line, features, cwd), 1 + random.below(MOST_EVENTS));
        const view = viewOf(cwd, features);
        requireSound(cwd, features.lazy === true || line.includes('lazy'), features);
        expect(viewOf(cwd, features).equals(view)).toBe(true);
        const again = ours(cwd, wordsOf(line, features, cwd));
        const after = verb.changes === true ? viewOf(cwd, features) : before;
        expect(again.err).not.toMatch(/internal error/);
        expect(view.equals(before) || view.equals(after)).toBe(true);
        // Where a snapshot has nothing, it shows the backing file, whatever that is and holds.
        if (snapshot === null || /snapshot -d|commit|rebase/.test(line)) continue;
        const shown = viewOf(cwd, features, '-l', 's1');
        const length = Math.min(shown.length, snapshot.length);
        expect(shown.subarray(0, length).equals(snapshot.subarray(0, length))).toBe(true);
      }
    },
    240_000,
  );
});
