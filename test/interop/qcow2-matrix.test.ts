// SPDX-License-Identifier: Apache-2.0
// Every feature of qcow2 beside every other, by pairs: one program makes an image, both work on it
// in turns (guest writes, zeroes, discards, snapshots, a bitmap), and after each turn both check
// it, compare it with what it must hold and print the same JSON, letter by letter.
//
// By default a sample of the rows is played, each begun by one of the programs; in campaigns all
// are, begun by either.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

import { nativeAddon } from '../../src/host/index.js';
import { SeededRandom } from '../../src/base/index.js';
import { storedBits } from '../helpers/bitmap-places.js';
import { runIn } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import type { Outcome } from '../helpers/command-line.js';
import { pairwiseRows } from '../helpers/pairwise.js';
import type { Row } from '../helpers/pairwise.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const KIB = 1024;
const STEP = 19;
const COLUMNS = {
  compat: ['1.1', '0.10'],
  cluster: Array.from({ length: 13 }, (_, index) => 512 * 2 ** index),
  refcountBits: [16, 1, 2, 4, 8, 32, 64],
  extended: [false, true],
  compression: ['zlib', 'zstd'],
  dataFile: ['none', 'plain', 'raw'],
  lazy: [false, true],
  backing: [false, true],
  snapshot: [true, false],
  bitmap: [true, false],
} as const;

type Cell = Row<typeof COLUMNS>;

/** What both programs agree to make. */
function isMade(row: Cell): boolean {
  const isPlain =
    !row.extended &&
    row.compression === 'zlib' &&
    row.dataFile === 'none' &&
    !row.lazy &&
    !row.bitmap;
  if (row.compat === '0.10' && !(isPlain && row.refcountBits === 16)) return false;
  if (row.extended && row.cluster < 16 * KIB) return false;
  if (row.dataFile !== 'none' && row.snapshot) return false;
  if (row.dataFile === 'raw' && row.backing) return false;
  return !(row.snapshot && row.refcountBits === 1);
}

const ROWS = pairwiseRows(COLUMNS, { allowed: isMade, seed: 5 });

const folder = mkdtempSync(join(tmpdir(), 'blockwright-matrix-'));
const server = new CommandServer();
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

type Program = (command: 'img' | 'io', args: readonly string[]) => Outcome;

const real: Program = (command, args) => runIn(folder, [peer(`qemu-${command}`) ?? '', ...args]);
const ours: Program = (command, args) => {
  const { out, err, status } = server.run(folder, ['--as', `qemu-${command}`, command, ...args]);
  return { out, err, status };
};

interface Span {
  readonly offset: number;
  readonly length: number;
}

/** One image, what it must hold, and the turns that both programs take at it. */
interface Mapped {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
  readonly zero: boolean;
  readonly offset?: number;
}

/**
 * A map in which holes within clusters of data are data: when a program looks for them is guessed
 * from how much of the file is allocated, and not by both alike.
 */
function withoutHoles(json: string): unknown {
  const shown: Mapped[] = [];
  for (const part of JSON.parse(json) as Mapped[]) {
    const now = part.data ? { ...part, zero: false } : part;
    const last = shown.at(-1);
    const follows =
      last?.data === true &&
      now.data &&
      last.offset !== undefined &&
      now.offset === last.offset + last.length;
    if (!follows) shown.push(now);
    else shown[shown.length - 1] = { ...last, length: last.length + now.length };
  }
  return shown;
}

class Play {
  readonly #random: SeededRandom;
  readonly #size: number;
  /** What the image, its snapshots and its bitmap must say. */
  #view: Uint8Array;
  readonly #snapshots = new Map<string, Uint8Array>();
  #dirty: Span[] = [];
  #tag = 0;
  /** Discards are ignored where clusters cannot be told to be zero. */
  #isLasting: boolean;

  constructor(
    readonly row: Cell,
    readonly name: string,
    seed: number,
  ) {
    this.#random = new SeededRandom(seed);
    const least = row.cluster > 512 * KIB ? 3 : 5;
    const clusters = Math.max(least, Math.ceil((320 * KIB) / row.cluster));
    this.#size = clusters * row.cluster + 512 * (seed % 3) * (row.cluster > 512 ? 1 : 0);
    this.#view = new Uint8Array(this.#size);
    this.#isLasting = row.compat === '0.10' && row.backing;
  }

  play(first: Program, second: Program): void {
    const { name, row } = this;
    this.#create(first);
    this.#write(first);
    if (row.snapshot) this.#takeSnapshot(first, 's1');
    if (row.bitmap) {
      this.#well(first, 'img', ['bitmap', '--add', '-g', '4096', name, 'b0']);
      this.#dirty = [];
    }
    this.#write(first);
    this.#judge();
    this.#write(second);
    // Applying a snapshot the reference counts up first, which two bits are too few for.
    const isTwice = row.snapshot && row.refcountBits > 2;
    if (isTwice) this.#takeSnapshot(second, 's2');
    this.#write(first);
    this.#write(second);
    this.#judge();
    if (!row.snapshot) return this.#amend(second);
    // Images with bitmaps are not taken back to a snapshot.
    if (!row.bitmap) this.#apply(second, 's1');
    this.#well(first, 'img', ['snapshot', '-d', 's1', name]);
    this.#snapshots.delete('s1');
    this.#judge();
    if (!isTwice) return;
    this.#well(second, 'img', ['snapshot', '-d', 's2', name]);
    this.#snapshots.delete('s2');
    this.#judge();
  }

  /** Other refcounts, and in version 3. */
  #amend(program: Program): void {
    const bits = this.row.refcountBits === 64 ? 8 : 64;
    const lazy = this.row.lazy ? 'off' : 'on';
    const options = `compat=1.1,refcount_bits=${bits},lazy_refcounts=${lazy}`;
    this.#well(program, 'img', ['amend', '-f', 'qcow2', '-o', options, this.name]);
    this.#isLasting = false;
    this.#judge();
    this.#write(program === real ? ours : real);
    this.#judge();
  }

  #well(program: Program, command: 'img' | 'io', args: readonly string[]): string {
    const { out, err, status } = program(command, args);
    const who = program === real ? 'the real one' : 'ours';
    const where = `${who}: ${command} ${args.join(' ')}\n${status === 0 ? '' : out}`;
    expect({ err, status }, where).toEqual({ err: '', status: 0 });
    return out;
  }

  #create(program: Program): void {
    const { row, name } = this;
    const options = [
      `compat=${row.compat}`,
      `cluster_size=${row.cluster}`,
      `refcount_bits=${row.refcountBits}`,
    ];
    if (row.extended) options.push('extended_l2=on');
    if (row.lazy) options.push('lazy_refcounts=on');
    if (row.compression !== 'zlib') options.push(`compression_type=${row.compression}`);
    if (row.dataFile !== 'none') {
      const isRaw = row.dataFile === 'raw' ? 'on' : 'off';
      options.push(`data_file=${name}.data`, `data_file_raw=${isRaw}`);
    }
    const base = `${name}.base`;
    if (row.backing) {
      const covered = Math.floor((this.#size * 0.7) / 512) * 512;
      this.#random.fill(this.#view.subarray(0, covered));
      writeFileSync(join(folder, base), this.#view.subarray(0, covered));
    }
    const backing = row.backing ? ['-b', base, '-F', 'raw'] : [];
    const words = ['create', '-q', '-f', 'qcow2', '-o', options.join(','), ...backing];
    this.#well(program, 'img', [...words, name, String(this.#size)]);
  }

  /** Several guest requests of one process. */
  #write(program: Program): void {
    const { cluster } = this.row;
    const isLasting = this.#isLasting;
    // Several compressed clusters share a host cluster, and its refcount goes up by all of them.
    const isNarrow = this.row.snapshot && this.row.refcountBits <= 4;
    const isPacked = !isLasting && !isNarrow && this.row.dataFile === 'none';
    const lines: string[] = [];
    for (let count = 0; count < 7; count += 1) {
      const kinds = ['write', 'write', 'write', 'zero', 'unmap', 'discard', 'compress'];
      const kind = kinds[this.#random.below(isPacked ? 7 : 6)];
      const isWhole = kind === 'compress' || kind === 'discard';
      const { offset, length } = this.#span(isWhole ? cluster : 512);
      const place = `${offset} ${length}`;
      const tag = 1 + (this.#tag++ % 250);
      if (kind === 'write') lines.push(`write -q -P ${tag} ${place}`);
      // The reference does not compress over allocated clusters.
      if (kind === 'compress') lines.push(`discard -q ${place}`, `write -q -c -P ${tag} ${place}`);
      if (kind === 'zero') lines.push(`write -q -z ${place}`);
      if (kind === 'unmap') lines.push(`write -q -z -u ${place}`);
      if (kind === 'discard') lines.push(`discard -q ${place}`);
      this.#dirty.push({ offset, length });
      const value = kind === 'write' || kind === 'compress' ? tag : 0;
      if (kind !== 'discard' || !isLasting) this.#view.fill(value, offset, offset + length);
    }
    const words = lines.flatMap((line) => ['-c', line]);
    this.#well(program, 'io', ['-f', 'qcow2', '-d', 'unmap', ...words, this.name]);
  }

  #span(unit: number): Span {
    const units = Math.ceil(this.#size / unit);
    const first = this.#random.below(units);
    const most = Math.max(1, Math.min(units - first, Math.floor(units / 3)));
    const offset = first * unit;
    const end = Math.min(this.#size, offset + (1 + this.#random.below(most)) * unit);
    return { offset, length: end - offset };
  }

  #takeSnapshot(program: Program, snapshot: string): void {
    this.#well(program, 'img', ['snapshot', '-c', snapshot, this.name]);
    this.#snapshots.set(snapshot, this.#view.slice());
  }

  #apply(program: Program, snapshot: string): void {
    this.#well(program, 'img', ['snapshot', '-a', snapshot, this.name]);
    this.#view = this.#snapshots.get(snapshot)?.slice() ?? new Uint8Array(0);
  }

  /** Both programs find everything as it must be, and say it in the same words. */
  #judge(): void {
    const { name } = this;
    const model = `${name}.model`;
    writeFileSync(join(folder, model), this.#view);
    const compare = ['compare', '-f', 'qcow2', '-F', 'raw', name, model];
    for (const verb of ['check', 'map', 'info', 'measure']) {
      const target = verb === 'measure' ? ['-O', 'qcow2'] : [];
      const words = [verb, '--output=json', '-f', 'qcow2', ...target, name];
      const shown = verb === 'map' ? withoutHoles : (text: string): unknown => text;
      const said = shown(this.#well(ours, 'img', words));
      expect(said, words.join(' ')).toEqual(shown(this.#well(real, 'img', words)));
    }
    this.#well(ours, 'img', compare);
    this.#well(real, 'img', compare);
    this.#judgeSnapshots();
    if (this.row.bitmap) this.#judgeBitmap();
  }

  #judgeSnapshots(): void {
    const copy = `${this.name}.copy`;
    for (const [snapshot, view] of this.#snapshots) {
      for (const program of [ours, real]) {
        const words = ['-f', 'qcow2', '-O', 'raw', '-l', `snapshot.name=${snapshot}`];
        this.#well(program, 'img', ['convert', ...words, this.name, copy]);
        expect(readFileSync(join(folder, copy)).equals(view), snapshot).toBe(true);
      }
    }
  }

  #judgeBitmap(): void {
    const { granularity, dirty } = storedBits(readFileSync(join(folder, this.name)));
    const wanted = dirty.map((_, granule) =>
      this.#dirty.some(
        ({ offset, length }) =>
          offset < (granule + 1) * granularity && offset + length > granule * granularity,
      ),
    );
    expect(dirty).toEqual(wanted);
  }
}

const isPossible = peer('qemu-img') !== null && peer('qemu-io') !== null;

describe('images of all features', () => {
  const cases = ROWS.flatMap((row, index) => {
    const orders = [`real first ${index}`, `ours first ${index}`];
    const isSample = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined;
    const shown = isSample ? [orders[(index / STEP) % 2]] : orders;
    return shown.map((order) => ({ row, order: order ?? '', seed: index + 1 }));
  });

  // Without the addon nothing is punched: a discard leaves what a raw data file holds.
  const played = someOf(cases, STEP).filter(
    ({ row }) => row.dataFile !== 'raw' || nativeAddon() !== null,
  );

  it.skipIf(!isPossible).each(played)(
    'are worked on in turns: $order $row',
    ({ row, order, seed }) => {
      const play = new Play(row, `${order.replaceAll(' ', '-')}.qcow2`, seed);
      const isRealFirst = order.startsWith('real');
      play.play(isRealFirst ? real : ours, isRealFirst ? ours : real);
    },
    120_000,
  );
});
