// SPDX-License-Identifier: Apache-2.0
// Images of every feature with a few words of their metadata changed, beside the real tool: every
// reading verb ends in time, in little memory and with one clear line, and where both give data it
// is the same. Where the real tool refuses, we never give data with exit status 0.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { CommandServer } from '../helpers/command-server.js';
import { goldenImages, unpackGolden } from '../helpers/golden.js';
import type { GoldenFolder } from '../helpers/golden.js';
import { measureLine, misdeeds, refusalLines } from '../helpers/measured-run.js';
import type { MeasuredRun } from '../helpers/measured-run.js';
import { peer } from '../helpers/peers.js';
import { forEachSeed, someOf } from '../helpers/seeds.js';

const BASES = [
  'v3-4k', 'v2-4k', 'v3-512', 'compressed', 'zeroes', 'snapshot', 'bitmap', 'extended-l2', 'zstd',
  'v3-refcount-1', 'v3-refcount-64', 'dirty', 'data-file',
].map((name) => `${name}.qcow2`);
const SEEDS = Array.from({ length: 48 }, (_, index) => index + 1);
const DEFAULT_SHARE = 24;
const WORD = 8;
/** Guest data of the golden images are bytes of one value: their words are not metadata. */
const MOST_REAL_BYTES = 64 * 2 ** 20;

const tool = peer('qemu-img');
const server = new CommandServer();
let golden: GoldenFolder;
let folder: string;
beforeAll(() => {
  golden = unpackGolden(goldenImages.filter(({ status }) => status !== 'hostile'));
  folder = mkdtempSync(join(tmpdir(), 'mutations-'));
});
afterAll(() => {
  server.close();
  golden.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** Places of words that are neither zero nor one byte again and again. */
function metadataWords(bytes: Buffer): number[] {
  const places: number[] = [];
  for (let at = 0; at + WORD <= bytes.length; at += WORD) {
    const word = bytes.subarray(at, at + WORD);
    if (word.some((byte) => byte !== word[0])) places.push(at);
  }
  return places;
}

function mutated(bytes: Buffer, seed: number): Buffer {
  const random = new SeededRandom(seed);
  const result = Buffer.from(bytes);
  const places = metadataWords(bytes);
  // Some of the changes hit the header, which is a small part of the words.
  const header = places.filter((at) => at < 200);
  for (let count = 1 + random.below(2); count > 0; count -= 1) {
    const from = random.below(8) === 0 ? header : places;
    const at = from[random.below(from.length)] ?? 0;
    if (at === 0) continue;
    const other = places[random.below(places.length)] ?? 0;
    const change = random.below(6);
    if (change === 0) result.writeUInt8(random.below(256), at + random.below(WORD));
    if (change === 1) result.fill(0xff, at, at + 1 + random.below(WORD));
    if (change === 2) result.fill(0, at, at + WORD);
    if (change === 3) bytes.copy(result, at, other, other + WORD);
    if (change === 4) {
      const byte = at + random.below(WORD);
      result.writeUInt8(result.readUInt8(byte) ^ (1 << random.below(8)), byte);
    }
    if (change === 5) result.writeUIntBE(random.below(64) * 4096, at + 2, 6);
  }
  return result;
}

interface RealRun {
  readonly status: number | null;
  readonly output: string;
  readonly complaint: string;
}

function real(...args: readonly string[]): RealRun {
  // What the real tool does to a hostile image may take long or fill the disk.
  const limited = `ulimit -t 10; ulimit -f ${MOST_REAL_BYTES / 512}; exec "$0" "$@"`;
  const run = spawnSync('/bin/sh', ['-c', limited, tool ?? '', ...args], {
    cwd: folder, encoding: 'utf8', timeout: 30_000,
  });
  return { status: run.status, output: run.stdout, complaint: run.stderr };
}

function ours(...args: readonly string[]): MeasuredRun {
  return measureLine(server, ['img', ...args], folder);
}

/** What is wrong with our side, as lines. */
function differences(image: string): string[] {
  const found: string[] = [];
  const both = (...args: readonly string[]): { mine: MeasuredRun; theirs: RealRun } => {
    const mine = ours(...args);
    found.push(...misdeeds(mine).map((text) => `${args.join(' ')}: ${text}`));
    if (mine.status === 1 && args[0] !== 'check' && refusalLines(mine).length !== 1) {
      found.push(`${args.join(' ')}: ${mine.complaint}`);
    }
    return { mine, theirs: real(...args) };
  };
  const info = both('info', '--output=json', '-f', 'qcow2', image);
  const size = virtualSize(info.mine.output) ?? virtualSize(info.theirs.output) ?? 0;
  const check = both('check', '-f', 'qcow2', image);
  if (check.theirs.status === 2 && check.mine.status === 0) {
    found.push(`check finds nothing: ${check.theirs.output}${check.theirs.complaint}`);
  }
  both('snapshot', '-l', image);
  both('measure', '-O', 'qcow2', '-f', 'qcow2', image);
  const map = both('map', '--output=json', '-f', 'qcow2', image);
  if (map.mine.status === 0 && map.theirs.status === 0) {
    if (map.mine.output !== map.theirs.output) found.push('map differs');
  }
  if (size > MOST_REAL_BYTES) return found;
  const convert = (path: string): readonly string[] => [
    'convert', '-f', 'qcow2', '-O', 'raw', image, path,
  ];
  const mine = ours(...convert('mine'));
  const theirs = real(...convert('theirs'));
  found.push(...misdeeds(mine));
  if (mine.status === 0 && theirs.status !== 0) {
    found.push(`data with exit status 0 where it is refused: ${theirs.complaint}`);
  }
  if (mine.status === 0 && theirs.status === 0) {
    const [left, right] = ['mine', 'theirs'].map((name) => readFileSync(join(folder, name)));
    if (left === undefined || right?.equals(left) !== true) found.push('data differs');
  }
  both('compare', '-f', 'qcow2', '-F', 'qcow2', '-U', image, image);
  for (const name of ['mine', 'theirs']) rmSync(join(folder, name), { force: true });
  return found;
}

function virtualSize(text: string): number | null {
  try {
    return (JSON.parse(text) as { 'virtual-size': number })['virtual-size'];
  } catch {
    return null;
  }
}

describe.skipIf(tool === null)('images with changed metadata', () => {
  for (const base of BASES) {
    it(`of ${base} are read as the real tool reads them, or refused`, async () => {
      const bytes = readFileSync(join(golden.path, base));
      const image = join(golden.path, `mutant-${base}`);
      await forEachSeed(someOf(SEEDS, DEFAULT_SHARE), async (seed) => {
        writeFileSync(image, mutated(bytes, seed));
        expect(differences(image)).toEqual([]);
      });
    }, 600_000);
  }
});
