// SPDX-License-Identifier: Apache-2.0
// Every hostile golden image against every verb of img and against io: exit status and first
// line of complaint are those of hostile-lines.json, there is no stack trace, no control character
// on the terminal, work and memory are bounded, and an image that is only read is as it was.
//
// BLOCKWRIGHT_RECORD=1 writes hostile-lines.json anew: read what changed before it is kept.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommandServer } from '../helpers/command-server.js';
import { type GoldenFolder, goldenImages, unpackGolden } from '../helpers/golden.js';
import { measureLine, misdeeds, refusalLines } from '../helpers/measured-run.js';

const LINES = new URL('./hostile-lines.json', import.meta.url).pathname;
const records = process.env['BLOCKWRIGHT_RECORD'] === '1';
/** By default each image meets every so many of the verbs, another part of them each. */
const SHARE = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined && !records ? 10 : 1;

type Lines = Record<string, Record<string, string>>;

/** Verbs that only read come first. */
const READING: Readonly<Record<string, (image: string) => readonly string[]>> = {
  info: (image) => ['img', 'info', '--output=json', image],
  chain: (image) => ['img', 'info', '--backing-chain', image],
  check: (image) => ['img', 'check', '-f', 'qcow2', image],
  map: (image) => ['img', 'map', '-f', 'qcow2', image],
  measure: (image) => ['img', 'measure', '-O', 'qcow2', '-f', 'qcow2', image],
  list: (image) => ['img', 'snapshot', '-l', image],
  convert: (image) => ['img', 'convert', '-f', 'qcow2', '-O', 'raw', image, 'out'],
  compare: (image) => ['img', 'compare', '-U', '-f', 'qcow2', '-F', 'qcow2', image, image],
  dd: (image) => ['img', 'dd', '-f', 'qcow2', '-O', 'raw', 'bs=64k', `if=${image}`, 'of=out'],
  read: (image) => ['io', '-r', '-f', 'qcow2', '-c', 'read 0 1M', image],
};

const WRITING: typeof READING = {
  repair: (image) => ['img', 'check', '-r', 'all', '-f', 'qcow2', image],
  create: (image) => ['img', 'snapshot', '-c', 'new', image],
  apply: (image) => ['img', 'snapshot', '-a', 'first', image],
  remove: (image) => ['img', 'snapshot', '-d', 'first', image],
  resize: (image) => ['img', 'resize', '-f', 'qcow2', image, '+64k'],
  amend: (image) => ['img', 'amend', '-f', 'qcow2', '-o', 'lazy_refcounts=on', image],
  bitmap: (image) => ['img', 'bitmap', '-f', 'qcow2', '--add', image, 'new'],
  rebase: (image) => ['img', 'rebase', '-f', 'qcow2', '-u', '-b', '', image],
  commit: (image) => ['img', 'commit', '-f', 'qcow2', image],
  write: (image) => ['io', '-f', 'qcow2', '-c', 'write 0 68k', '-c', 'discard 0 1M', image],
};

const SECRET = ['--object', 'secret,id=k,data=golden'];
const keyed = (image: string): readonly string[] => [
  ...SECRET, '--image-opts', `driver=luks,key-secret=k,file.filename=${image}`,
];

const LUKS_READING: typeof READING = {
  info: (image) => ['img', 'info', '--output=json', '-f', 'luks', image],
  guess: (image) => ['img', 'info', image],
  dump: (image) => ['img', 'luks', 'dump', image],
  test: (image) => ['img', 'luks', 'test-passphrase', ...SECRET, '--secret', 'k', image],
  backup: (image) => ['img', 'luks', 'header-backup', image, `${image}.backup`],
  check: (image) => ['img', 'check', ...keyed(image)],
  map: (image) => ['img', 'map', ...keyed(image)],
  measure: (image) => ['img', 'measure', '-O', 'raw', ...keyed(image)],
  convert: (image) => ['img', 'convert', ...keyed(image), '-O', 'raw', 'out'],
  read: (image) => ['io', '-r', '-c', 'read 0 64k', ...keyed(image)],
};

const LUKS_WRITING: typeof READING = {
  resize: (image) => ['img', 'resize', ...keyed(image), '+64k'],
  amend: (image) => ['img', 'amend', ...keyed(image), '-o', 'state=active,new-secret=k'],
  erase: (image) => ['img', 'amend', '--force', ...keyed(image), '-o', 'state=inactive,keyslot=0'],
  write: (image) => ['io', '-c', 'write 0 64k', ...keyed(image)],
  restore: (image) => ['img', 'luks', 'header-restore', image, image],
};

const TABLES = {
  qcow2: { reading: READING, all: Object.entries({ ...READING, ...WRITING }) },
  luks: { reading: LUKS_READING, all: Object.entries({ ...LUKS_READING, ...LUKS_WRITING }) },
} as const;
const tableOf = (file: string): (typeof TABLES)['qcow2'] =>
  TABLES[file.endsWith('.luks') ? 'luks' : 'qcow2'];
const server = new CommandServer();
const recorded: Lines = records ? {} : (JSON.parse(readFileSync(LINES, 'utf8')) as Lines);
let folder: GoldenFolder;
beforeAll(() => {
  folder = unpackGolden();
});
afterAll(() => {
  server.close();
  folder.remove();
  if (records) writeFileSync(LINES, `${JSON.stringify(recorded, null, 1)}\n`);
});

describe('a hostile image on the command line', () => {
  const hostile = goldenImages.filter(({ status }) => status === 'hostile');
  for (const [place, { file, proves }] of hostile.entries()) {
    it(`is refused or found corrupt: ${file}, ${proves}`, () => {
      const path = join(folder.path, file);
      const bytes = readFileSync(path);
      const expected: Record<string, string> = recorded[file] ?? {};
      const { reading, all } = tableOf(file);
      for (const [index, [verb, words]] of all.entries()) {
        if ((index + place) % SHARE !== 0) continue;
        const run = measureLine(server, words(file), folder.path);
        // A dump is set in columns.
        const output = verb === 'dump' ? run.output.replaceAll('\t', ' ') : run.output;
        expect(misdeeds({ ...run, output }), verb).toEqual([]);
        if (verb in reading) expect(readFileSync(path).equals(bytes), verb).toBe(true);
        else writeFileSync(path, bytes);
        const lines = refusalLines(run).filter((line) => line !== '');
        // With a second line that helps where a format cannot be guessed.
        const isLuks = file.endsWith('.luks') && verb !== 'guess';
        const isOneLine = isLuks || /^(convert|map|measure)$/.test(verb);
        if (run.status === 1 && isOneLine) expect(lines, verb).toHaveLength(1);
        // Nodes without names are counted, and times depend on the machine.
        const line = `${run.status} ${lines[0] ?? ''}`
          .trim()
          .replace(/#block\d+/, '#block')
          .replace(/about \d+ s/, 'about N s');
        // What a repair says goes on for pages; its own tests hold it.
        if (verb === 'repair') continue;
        if (records) expected[verb] = line;
        else expect(line, verb).toBe(expected[verb]);
      }
      recorded[file] = expected;
    });
  }
});

describe('the recorded lines', () => {
  it('refuse or find something in every image', () => {
    for (const [file, lines] of Object.entries(recorded)) {
      const tellers = Object.entries(lines).filter(([verb, line]) => {
        return verb in tableOf(file).reading && !line.startsWith('0');
      });
      expect(tellers, file).not.toEqual([]);
    }
  });
});
