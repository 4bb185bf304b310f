// SPDX-License-Identifier: Apache-2.0
// Encrypted qcow2 images in every geometry, over backing files of every kind: two programs work on
// them in turns, and what they hold is read in lanes with and without the addon, through the nodes,
// and by the reference. Then all is copied into another encrypted image, and its chain changes.
//
// By default the beginning of one row is played, in campaigns all of all rows.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { runIn } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import type { Outcome } from '../helpers/command-line.js';
import { pairwiseRows } from '../helpers/pairwise.js';
import type { Row } from '../helpers/pairwise.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const KIB = 1024;
const IS_WHOLE = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const KEY = 'encrypt.key-secret=s';
const LUKS = `encrypt.format=luks,${KEY},encrypt.iter-time=10`;
const METHODS = {
  none: '',
  xts: LUKS,
  essiv:
    `${LUKS},encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,` +
    'encrypt.ivgen-hash-alg=sha256',
  aes: `encrypt.format=aes,${KEY}`,
} as const;
type Method = keyof typeof METHODS;

const COLUMNS = {
  method: ['xts', 'aes', 'essiv'],
  compat: ['1.1', '0.10'],
  cluster: Array.from({ length: 13 }, (_, index) => 512 * 2 ** index),
  extended: [false, true],
  dataFile: [false, true],
  backing: ['nothing', 'raw', 'none', 'xts', 'aes'],
  snapshot: [false, true],
  target: ['xts', 'aes', 'none'],
} as const;
type Cell = Row<typeof COLUMNS>;

function isMade(row: Cell): boolean {
  if (row.compat === '0.10' && (row.extended || row.dataFile)) return false;
  if (row.extended && row.cluster < 16 * KIB) return false;
  return !(row.dataFile && row.snapshot);
}

/** The row of which the beginning is played. */
const PLAYED = 11;
const ROWS = pairwiseRows(COLUMNS, { allowed: isMade, seed: 6 });

const folder = mkdtempSync(join(tmpdir(), 'blockwright-encryption-'));
const server = new CommandServer();
const twinServer = new CommandServer({ env: { BLOCKWRIGHT_NATIVE: '0' } });
afterAll(() => {
  server.close();
  twinServer.close();
  rmSync(folder, { recursive: true, force: true });
});

type Program = (command: 'img' | 'io', args: readonly string[]) => Outcome;

const real: Program = (command, args) => runIn(folder, [peer(`qemu-${command}`) ?? '', ...args]);
const served =
  (by: CommandServer): Program =>
  (command, args) => {
    const { out, err, status } = by.run(folder, ['--as', `qemu-${command}`, command, ...args]);
    return { out, err, status };
  };
const ours = served(server);
const twin = served(twinServer);
const NAMES = new Map<Program, string>([[real, 'real'], [ours, 'ours'], [twin, 'twin']]);
const SECRET = ['--object', 'secret,id=s,data=geheim'];

function well(program: Program, command: 'img' | 'io', args: readonly string[]): string {
  const [verb = '', ...rest] = args;
  const words = command === 'img' ? [verb, ...SECRET, ...rest] : [...SECRET, ...args];
  const { out, err, status } = program(command, words);
  const where = `${NAMES.get(program)}: ${command} ${words.join(' ')}\n${out}`;
  expect({ err, status }, where).toEqual({ err: '', status: 0 });
  return out;
}

interface Span {
  readonly offset: number;
  readonly length: number;
}

/** One image, what it must hold, and what is done to it. */
class Play {
  readonly #random: SeededRandom;
  #size: number;
  #view: Uint8Array;
  #tag = 0;
  readonly #base: string;
  /** Discards are ignored where clusters cannot be told to be zero. */
  readonly #isLasting: boolean;
  /** There is the state of a machine, which the reference shows on a disk that grows over it. */
  readonly #hasState: boolean;

  constructor(
    readonly row: Cell,
    readonly name: string,
    readonly seed: number,
  ) {
    this.#random = new SeededRandom(seed);
    const clusters = Math.max(3, Math.ceil((256 * KIB) / row.cluster));
    this.#size = clusters * row.cluster + 512 * (seed % 3) * (row.cluster > 512 ? 1 : 0);
    this.#view = new Uint8Array(this.#size);
    this.#base = `${name}.base`;
    this.#hasState = seed % 2 === 0 && !row.dataFile;
    this.#isLasting = row.compat === '0.10' && row.backing !== 'nothing';
  }

  play(first: Program, second: Program): void {
    this.#create();
    this.#write(first);
    this.#write(second);
    this.#judge();
    if (!IS_WHOLE) return;
    this.#copy();
    if (this.row.snapshot) this.#takeBack(first, second);
    this.#resize(second, this.#size + 512 * (1 + this.#random.below(3000)));
    this.#write(first);
    // The reference loses the clusters of a state, and shows again what it cut off of a cluster.
    const shrinks = this.#hasState ? ours : real;
    this.#resize(shrinks, Math.floor(this.#size / 1024) * 512, '--shrink');
    this.#resize(ours, this.#size * 2);
    this.#write(first);
    this.#judge();
    if (this.row.backing !== 'nothing') this.#changeChain(first, second);
  }

  #options(name = this.name, above = ''): string {
    const { backing } = this.row;
    const key = this.#methodOf(name) === 'none' ? '' : `,${above}${KEY}`;
    const own = `${above}driver=qcow2${key},${above}file.filename=${name}`;
    if (name !== this.name || !this.#hasBacking) return own;
    const below =
      backing === 'raw'
        ? `${above}backing.driver=raw,${above}backing.file.filename=${this.#base}`
        : this.#options(this.#base, `${above}backing.`);
    return `${own},${below}`;
  }

  #hasBacking = false;

  #methodOf(name: string): Method {
    const { method, backing, target } = this.row;
    if (name === this.#base) return backing === 'nothing' || backing === 'raw' ? 'none' : backing;
    return name === this.name ? method : target;
  }

  #create(): void {
    const { row, name } = this;
    const options = [`compat=${row.compat}`, `cluster_size=${row.cluster}`, METHODS[row.method]];
    if (row.extended) options.push('extended_l2=on');
    if (row.dataFile) options.push(`data_file=${name}.data`);
    const backing: string[] = [];
    if (row.backing !== 'nothing') {
      const covered = Math.floor((this.#size * 0.7) / 512) * 512;
      this.#random.fill(this.#view.subarray(0, covered));
      writeFileSync(join(folder, `${name}.raw`), this.#view.subarray(0, covered));
      this.#makeFrom(`${name}.raw`, this.#base, row.backing);
      const format = row.backing === 'raw' ? 'raw' : 'qcow2';
      backing.push('-u', '-b', this.#base, '-F', format);
      this.#hasBacking = true;
    }
    const words = ['create', '-q', '-f', 'qcow2', '-o', options.join(','), ...backing];
    well(ours, 'img', [...words, name, String(this.#size)]);
  }

  #makeFrom(plain: string, name: string, kind: 'raw' | Method): void {
    const options = kind === 'raw' || kind === 'none' ? [] : ['-o', METHODS[kind]];
    const format = kind === 'raw' ? 'raw' : 'qcow2';
    well(ours, 'img', ['convert', '-f', 'raw', '-O', format, ...options, plain, name]);
  }

  /** Several guest requests of one process; some hold parts of sectors. */
  #write(program: Program): void {
    const { cluster } = this.row;
    const lines: string[] = [];
    for (let count = 0; count < 8; count += 1) {
      const kind = (['write', 'write', 'bytes', 'zero', 'unmap', 'discard', 'state'] as const)[
        this.#random.below(this.#hasState ? 7 : 6)
      ] ?? 'write';
      const unit = kind === 'discard' ? cluster : kind === 'bytes' ? 1 : 512;
      const { offset, length } = this.#span(unit);
      const place = `${offset} ${length}`;
      const tag = 1 + (this.#tag++ % 250);
      if (kind === 'state') {
        lines.push(`write -q -b -P ${tag} ${offset} ${length}`);
        this.#state = { tag, offset, length };
        continue;
      }
      if (kind === 'write' || kind === 'bytes') lines.push(`write -q -P ${tag} ${place}`);
      if (kind === 'zero') lines.push(`write -q -z ${place}`);
      if (kind === 'unmap') lines.push(`write -q -z -u ${place}`);
      if (kind === 'discard') lines.push(`discard -q ${place}`);
      const value = kind === 'write' || kind === 'bytes' ? tag : 0;
      if (kind !== 'discard' || !this.#isLasting) this.#view.fill(value, offset, offset + length);
    }
    const words = lines.flatMap((line) => ['-c', line]);
    well(program, 'io', ['-d', 'unmap', ...words, '--image-opts', this.#options()]);
  }

  #state: (Span & { readonly tag: number }) | null = null;

  #span(unit: number): Span {
    const units = Math.ceil(this.#size / unit);
    const first = this.#random.below(units);
    const most = Math.max(1, Math.min(units - first, Math.floor(units / 3)));
    const offset = first * unit;
    const end = Math.min(this.#size, offset + (1 + this.#random.below(most)) * unit);
    return { offset, length: end - offset };
  }

  /** However it is read, it holds what it must. */
  #judge(image = this.#options(), view = this.#view): void {
    const nodes = `driver=blkdebug,${image.replaceAll(/(^|,)/g, '$1image.')}`;
    const all: readonly (readonly [string, Program, string])[] = [
      ['in lanes', ours, image],
      ['without the addon', twin, image],
      ['through the nodes', ours, nodes],
      ['by the reference', real, image],
    ];
    // Another server takes long to start.
    const ways = all.filter(([, program]) => IS_WHOLE || program !== twin);
    for (const [how, program, options] of ways) {
      const copy = `${this.name}.copy`;
      well(program, 'img', ['convert', '-O', 'raw', '--image-opts', options, copy]);
      const got = readFileSync(join(folder, copy));
      expect({ how, at: differenceOf(got, view) }).toEqual({ how, at: -1 });
    }
    if (!IS_WHOLE) return;
    const words = ['--output=json', '--image-opts', image];
    for (const verb of ['check', 'map']) {
      const said = JSON.parse(well(ours, 'img', [verb, ...words])) as unknown;
      expect(said, verb).toEqual(JSON.parse(well(real, 'img', [verb, ...words])));
    }
    if (this.#state === null) return;
    const { tag, offset, length } = this.#state;
    const read = ['-r', '-c', `read -b -P ${tag} ${offset} ${length}`, '--image-opts', image];
    for (const program of [ours, real]) {
      expect(well(program, 'io', read), read.join(' ')).not.toContain('failed');
    }
  }

  /** Into another image, over what another program writes there. */
  #copy(): void {
    const { target, cluster } = this.row;
    const made = `${this.name}.made`;
    const method = METHODS[target];
    const other = cluster === 65_536 ? 4096 : 65_536;
    const options = [`cluster_size=${other}`, ...(method === '' ? [] : [method])].join(',');
    const source = ['--image-opts', this.#options()];
    well(ours, 'img', ['convert', '-O', 'qcow2', '-o', options, ...source, made]);
    const state = this.#state;
    this.#state = null;
    this.#judge(this.#options(made));
    // Over what is there already, without the addon.
    well(real, 'io', ['-c', 'write -q -P 99 0 100k', '--image-opts', this.#options(made)]);
    const there = ['--target-image-opts', this.#options(made)];
    well(twin, 'img', ['convert', '-n', ...source, ...there]);
    this.#judge(this.#options(made));
    this.#state = state;
  }

  #takeBack(first: Program, second: Program): void {
    const image = ['--image-opts', this.#options()];
    well(first, 'img', ['snapshot', '-c', 'one', ...image]);
    const before = this.#view.slice();
    this.#state = null;
    this.#write(second);
    this.#judge();
    const copy = `${this.name}.copy`;
    for (const program of [ours, real]) {
      well(program, 'img', ['convert', '-O', 'raw', '-l', 'snapshot.name=one', ...image, copy]);
      expect(differenceOf(readFileSync(join(folder, copy)), before)).toBe(-1);
    }
    well(second, 'img', ['snapshot', '-a', 'one', ...image]);
    this.#view = before;
    this.#state = null;
    this.#judge();
    well(first, 'img', ['snapshot', '-d', 'one', ...image]);
  }

  #resize(program: Program, size: number, ...words: readonly string[]): void {
    const image = ['--image-opts', this.#options(), String(size)];
    well(program, 'img', ['resize', '-q', ...words, ...image]);
    const view = new Uint8Array(size);
    view.set(this.#view.subarray(0, size));
    this.#size = size;
    this.#view = view;
    this.#state = null;
    this.#judge();
  }

  #changeChain(first: Program, second: Program): void {
    const { row, name } = this;
    const image = ['--image-opts', this.#options()];
    if (row.backing === 'raw' || row.backing === 'none') {
      // Taken up, and flattened: names alone do not carry a key.
      well(second, 'img', ['rebase', '-q', '-b', '', ...image]);
      this.#hasBacking = false;
      this.#judge();
      return;
    }
    const length = this.#view.length;
    well(first, 'img', ['commit', '-q', '-d', ...image]);
    this.#state = null;
    this.#judge();
    expect(existsSync(join(folder, name))).toBe(true);
    const base = this.#options(this.#base);
    this.#judge(base, this.#view.subarray(0, length));
  }
}

function differenceOf(got: Uint8Array, wanted: Uint8Array): number {
  if (Buffer.compare(got, wanted) === 0) return -1;
  const at = wanted.findIndex((byte, index) => byte !== got[index]);
  return at < 0 ? Math.min(got.length, wanted.length) : at;
}

const isPossible = peer('qemu-img') !== null && peer('qemu-io') !== null;

describe('encrypted images of all geometries', () => {
  it.skipIf(!isPossible)('end in zeroes for others who make them larger, in data files too', () => {
    const size = 2 ** 20 + 512;
    const bytes = new Uint8Array(size).fill(5);
    writeFileSync(join(folder, 'odd'), bytes);
    for (const [index, more] of someOf(['', ',extended_l2=on'], 2).entries()) {
      const made = [`lanes${index}`, `nodes${index}`];
      for (const name of made) {
        const options = `${METHODS.aes},data_file=${name}.data${more}`;
        const image = ['--image-opts', `driver=qcow2,${KEY},file.filename=${name}`];
        const words = ['-q', '-f', 'qcow2', '-o', options, name, String(size)];
        well(ours, 'img', ['create', ...words]);
        if (name.startsWith('nodes')) {
          well(ours, 'io', ['-c', `write -q -P 5 0 ${size}`, ...image]);
          well(ours, 'img', ['resize', '-q', ...image, String(size + 1024)]);
        } else {
          const target = ['--target-image-opts', `driver=qcow2,${KEY},file.filename=${name}`];
          well(ours, 'img', ['convert', '-n', '-f', 'raw', 'odd', ...target]);
        }
        well(real, 'img', ['resize', '-q', ...image, '2M']);
        const read = ['-c', `read -P 5 0 ${size}`, '-c', `read -P 0 ${size} ${2 ** 20 - 512}`];
        expect(well(real, 'io', [...read, ...image]), name).not.toContain('failed');
      }
    }
  });

  const cases = ROWS.map((row, index) => ({ row, seed: index + 1 }));

  it.skipIf(!isPossible).each(someOf(cases, cases.length, -PLAYED))(
    'hold the same, however they are read: $seed $row',
    ({ row, seed }) => {
      const play = new Play(row, `${seed}.qcow2`, seed);
      const isRealFirst = seed % 2 === 0;
      play.play(isRealFirst ? real : ours, isRealFirst ? ours : real);
    },
    120_000,
  );
});
