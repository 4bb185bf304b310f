// SPDX-License-Identifier: Apache-2.0
// Hostile encryption headers beside the real programs. What they refuse is refused here, in the
// words of qemu-img where it has some; what they open is opened here with the same bytes. STRICTER
// and LENIENT are all exceptions; src/decisions/image-formats.md says why.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { escapeControls } from '../../src/base/index.js';
import { headerAreaBytes } from '../../src/crypto/luks/index.js';
import type { Outcome } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { LUKS_PASSWORD } from '../helpers/luks.js';
import { inQcow2, makeLuks, QUICK_SPEC } from '../helpers/luks-images.js';
import { luks1Mutant, luks2Mutant, qcow2LuksMutant } from '../helpers/luks-mutants.js';
import type { Luks2Base, Mutant } from '../helpers/luks-mutants.js';
import { makeLuks2 } from '../helpers/luks2-payload.js';
import { measureLine, misdeeds } from '../helpers/measured-run.js';
import { peer } from '../helpers/peers.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const SEEDS = runs(3, 600);
const img = peer('qemu-img');
const cryptsetup = peer('cryptsetup');
const SECRET = ['--object', `secret,id=k,data=${LUKS_PASSWORD}`];
/** The real programs derive what nobody waits for. */
const ENDLESS = /(iterations|time|memory|cpus) = (-1|[24]\d{9})|argon2/;

/** Where we refuse what they open, our line has one of these. */
const STRICTER = [
  // Names of other alphabets, and without an end.
  /LUKS header uuid .*is not (printable|NUL terminated)/,
  /LUKS2 header: (uuid|label|subsystem) is not/,
  // Ciphers that are not built in.
  /Algorithm '(serpent|twofish|cast5)' with|Cipher mode 'ctr' not supported/,
  // Beyond 2^32 sectors the reference begins again at 0.
  /overlapping with the encrypted payload/,
  /header without a payload/,
  // Of what an image cannot use nothing is left to chance.
  /\d CRYPTO header extensions|Encryption header (is beyond|length invalid|overlaps|of \d)/,
  // Tables that no guest data needs today.
  /(L1 table|L2 table|Reference count table) (offset|is beyond|at offset \d+ overlaps)/,
];
/** And beside cryptsetup, which looks at a keyslot only when it tries it. */
const STRICTER_THAN_CRYPTSETUP = [
  ...STRICTER,
  /Keyslot \d (state|iteration count)/,
  // Names in capital letters.
  /lgorithm '(sha256|aes)'/i,
  /LUKS2 header: its JSON text is (not UTF-8|broken)/,
  /LUKS2 header: 'keyslots\.\d+\.(af\.stripes|priority|kdf\.|key_size|area\.)/,
  /LUKS2 header: .*(is too small|is not aligned)/,
  /LUKS2 header: 'digests\.\d+\.(iterations|salt|digest|hash)/,
  /LUKS2 header: (type|digests|segments|requirement).* is not supported/,
];
/** Where we open what they refuse, their line has one of these. */
const LENIENT = [
  // Key material of a LUKS header need not lie in whole pages.
  /Keyslots? \d+ .*overlapping/,
  // Only keyslots that are tried have to be there.
  /Device m is too small/,
  // Written by other programs.
  /Unexpected cipher mode string format 'ecb'/,
];
/** Refusals that are told differently: theirs, ours. */
const OTHERWISE: readonly (readonly [theirs: RegExp, ours: RegExp])[] = [
  // It ends by a signal.
  [/^$/, /Missing CRYPTO header/],
  [/LUKS version/, /LUKS header: it ends at|LUKS2 header: neither/],
  [/payload is overlapping/, /header without a payload/],
  [/Could not refresh total sector count/, /before its payload/],
  [/Invalid password/, /overlapping with the encrypted payload|before its payload|uuid is not/],
  [/Request for data outside/, /overlapping with the encrypted payload/],
  // Key material in whole pages.
  [/Keyslot \d is overlapping with the LUKS header/, /Invalid password/],
  [/overlapping with the encrypted payload/, /Keyslots \d and \d are overlapping/],
  [/Invalid password/, /Algorithm '(serpent|twofish|cast5)' with|Cipher mode 'ctr' not supported/],
  [/Hash algorithm .* not supported/, /Algorithm '(serpent|twofish|cast5)' with|Cipher mode 'ctr'/],
  [/Unexpected cipher mode string format 'ecb'/, /Invalid password/],
  [/key size -\d+ bytes/, /overlapping/],
  [/Volume is not in LUKS format|Could not read encryption/, /CRYPTO header ext|Encryption header/],
  [/Encryption header offset .* is not a multiple/, /Encryption header offset invalid/],
  [/Request for data outside/, /Encryption header of 0 bytes/],
  [/Header reported 'aes'|No encryption in image header/, /CRYPTO header extension only expected/],
  [/Unsupported encryption method -\d/, /Unsupported encryption method \d/],
  [/Image is corrupt: L2 table offset/, /Encryption header overlaps the active L1 table/],
];

const folder = mkdtempSync(join(tmpdir(), 'hostile-luks-'));
const server = new CommandServer();
let luks1: Uint8Array;
let qcow2: Uint8Array;
let luks2: Luks2Base;
beforeAll(async () => {
  luks1 = (await makeLuks([LUKS_PASSWORD], { payload: 16_384 })).bytes;
  qcow2 = inQcow2(luks1.slice(0, headerAreaBytes(QUICK_SPEC)));
  luks2 = await makeLuks2(new Uint8Array(16_384).fill(5));
  writeFileSync(join(folder, 'password'), LUKS_PASSWORD);
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Ended after a few seconds of work. */
function real(program: string | null, words: readonly string[]): Outcome {
  const limited = ['-c', 'ulimit -t 5; exec "$0" "$@"', program ?? '', ...words];
  const { status, stdout, stderr } = spawnSync('/bin/sh', limited, { cwd: folder });
  // It prints bytes of the image as they are.
  const complaint = stderr.toString('latin1').trimEnd();
  const err = complaint === '' ? '' : `${escapeControls(complaint)}\n`;
  return { status, out: stdout.toString(), err };
}

function ours(words: readonly string[], found: string[]): Outcome {
  const run = measureLine(server, words, folder);
  // What is dumped is set in columns.
  found.push(...misdeeds({ ...run, output: run.output.replaceAll('\t', ' ') }));
  return { status: run.status, out: run.output, err: run.complaint };
}

const hasOne = (list: readonly RegExp[], line: string): boolean =>
  list.some((each) => each.test(line));

function differences(mine: Outcome, theirs: Outcome, stricter = STRICTER): string[] {
  const lines = `theirs: ${theirs.err}ours:   ${mine.err}`;
  if (mine.status !== 0 && mine.err.trimEnd().includes('\n')) return [`not one line: ${mine.err}`];
  if (theirs.status === 0 && mine.status !== 0) {
    return hasOne(stricter, mine.err) ? [] : [`refused here only, ${lines}`];
  }
  if (theirs.status !== 0 && mine.status === 0) {
    return hasOne(LENIENT, theirs.err) ? [] : [`opened here only, ${lines}`];
  }
  if (theirs.status === 0 || theirs.err === mine.err) return [];
  const isKnown = OTHERWISE.some(([left, right]) => left.test(theirs.err) && right.test(mine.err));
  return isKnown ? [] : [`told otherwise, ${lines}`];
}

const contents = (name: string): Buffer => readFileSync(join(folder, name));

function besideImg({ name, bytes }: Mutant, driver: 'luks' | 'qcow2'): string[] {
  if (ENDLESS.test(name)) return [];
  writeFileSync(join(folder, 'm'), bytes);
  const found: string[] = [];
  const key = driver === 'luks' ? 'key-secret=k' : 'encrypt.format=luks,encrypt.key-secret=k';
  const options = `driver=${driver},${key},file.filename=m`;
  const convert = ['convert', ...SECRET, '--image-opts', options, '-O', 'raw'];
  for (const words of [['info', '--output=json', '-f', driver, 'm'], convert]) {
    const isData = words === convert;
    const [left, right] = isData ? [['mine'], ['theirs']] : [[], []];
    const mine = ours(['--as', 'qemu-img', 'img', ...words, ...left], found);
    const theirs = real(img, [...words, ...right]);
    found.push(...differences(mine, theirs));
    if (mine.status !== 0 || theirs.status !== 0) continue;
    if (!isData && mine.out !== theirs.out) found.push(`${mine.out} not ${theirs.out}`);
    if (isData && !contents('mine').equals(contents('theirs'))) found.push('other data');
  }
  for (const file of ['mine', 'theirs']) rmSync(join(folder, file), { force: true });
  if (!contents('m').equals(bytes)) found.push('the image was written to');
  return found;
}

function besideCryptsetup({ name, bytes }: Mutant): string[] {
  if (ENDLESS.test(name)) return [];
  writeFileSync(join(folder, 'm'), bytes);
  const found: string[] = [];
  const test = ['img', 'luks', 'test-passphrase', ...SECRET, '--secret', 'k', 'm'];
  const mine = ours(test, found);
  const dump = ours(['img', 'luks', 'dump', 'm'], found);
  if (dump.status !== 0 && mine.status === 0) found.push(`dump: ${dump.err}`);
  const backup = ours(['img', 'luks', 'header-backup', 'm', 'backup'], found);
  if (existsSync(join(folder, 'backup')) !== (backup.status === 0)) found.push('half a backup');
  rmSync(join(folder, 'backup'), { force: true });
  if (!contents('m').equals(bytes)) found.push('the image was written to');
  // It writes over a copy that it finds broken.
  const theirs = real(cryptsetup, ['open', '--test-passphrase', '-d', 'password', 'm']);
  // It goes on with the other copy, which may say something else.
  const isOneCopy = /(primary|secondary), right sum/.test(name);
  if (isOneCopy && mine.err.includes('LUKS2 header: ')) return found;
  const areBothWrong = mine.status !== 0 && theirs.status !== 0;
  if (areBothWrong || mine.status === theirs.status) return found;
  return [...found, ...differences(mine, theirs, STRICTER_THAN_CRYPTSETUP)];
}

describe.skipIf(img === null)('hostile headers beside qemu-img', () => {
  it('of version 1', async () => {
    await forEachSeed(SEEDS, async (seed) => {
      const mutant = luks1Mutant(luks1, seed);
      expect(besideImg(mutant, 'luks'), mutant.name).toEqual([]);
    });
  });

  it('in qcow2', async () => {
    await forEachSeed(SEEDS, async (seed) => {
      const mutant = qcow2LuksMutant(qcow2, seed);
      expect(besideImg(mutant, 'qcow2'), mutant.name).toEqual([]);
    });
  });
});

describe.skipIf(cryptsetup === null)('hostile headers beside cryptsetup', () => {
  it('of version 1', async () => {
    await forEachSeed(SEEDS, async (seed) => {
      const mutant = luks1Mutant(luks1, seed);
      expect(besideCryptsetup(mutant), mutant.name).toEqual([]);
    });
  });

  it('of version 2', async () => {
    await forEachSeed(SEEDS, async (seed) => {
      const mutant = luks2Mutant(luks2, seed);
      expect(besideCryptsetup(mutant), mutant.name).toEqual([]);
    });
  });
});
