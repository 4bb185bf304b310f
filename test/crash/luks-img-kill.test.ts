// SPDX-License-Identifier: Apache-2.0
// `img amend` killed for good while it changes keyslots, alone and in qcow2: the real tools open
// the image with every password that was not to go and with none that is gone, no lock is left,
// data is as it was, and a second amend works. `img create` killed leaves no image or a whole one.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { runIn } from '../helpers/command-line.js';
import { inQcow2, luksOfQcow2, makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { runs, someOf } from '../helpers/seeds.js';

const cryptsetup = peer('cryptsetup');
const qemuIo = peer('qemu-io');
const program = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const usable = cryptsetup !== null && qemuIo !== null && existsSync(program);

const PASSWORDS = ['one', 'two', 'new', 'last'] as const;
const OBJECTS = PASSWORDS.flatMap((word) => ['--object', `secret,id=${word},data=${word}`]);
/** Where the payload begins in what makeLuks() makes. */
const PAYLOAD = 4096 + 8 * 65_536;

interface Kind {
  readonly name: string;
  readonly slots: readonly (string | undefined)[];
  readonly options: string;
  readonly force?: true;
  readonly after: readonly string[];
}

const TWO = ['one', undefined, undefined, undefined, undefined, undefined, 'two'];
const KINDS: readonly Kind[] = [
  {
    name: 'one more password',
    slots: TWO,
    options: 'state=active,new-secret=new,iter-time=0',
    after: ['one', 'two', 'new'],
  },
  {
    name: 'an erased password',
    slots: TWO,
    options: 'state=inactive,old-secret=two',
    after: ['one'],
  },
  {
    name: 'a replaced password',
    slots: TWO,
    options: 'state=active,new-secret=new,keyslot=6,iter-time=0',
    force: true,
    after: ['one', 'new'],
  },
  {
    name: 'the only password replaced',
    slots: ['one'],
    options: 'state=active,new-secret=new,keyslot=0,iter-time=0',
    force: true,
    after: ['new'],
  },
];
type Format = 'luks' | 'qcow2';

/** So many changes of the file were seen; those that come together are told as one. */
const MOMENTS = [1, 2, 3, 7, 20, 40, 60] as const;

function imageOf(format: Format, secret: string): string {
  const key = `key-secret=${secret},file.filename=image`;
  return format === 'luks'
    ? `driver=luks,${key}`
    : `driver=qcow2,encrypt.format=luks,encrypt.${key}`;
}

function amendWords(
  { options, force }: Pick<Kind, 'options' | 'force'>,
  format: Format,
  secret: string,
): string[] {
  const members = format === 'luks' ? options : options.replaceAll(/(^|,)/g, '$1encrypt.');
  const flags = force === true ? ['--force'] : [];
  const image = ['--image-opts', imageOf(format, secret)];
  return [program, 'img', 'amend', ...flags, ...OBJECTS, '-o', members, ...image];
}

/** Whether it was killed, as soon as so many changes were seen, before it ended by itself. */
async function runKilled(
  cwd: string,
  words: readonly string[],
  changes: number,
): Promise<boolean> {
  const watcher = watch(join(cwd, 'image'));
  const child = spawn(process.execPath, words, { cwd, stdio: 'ignore' });
  let seen = 0;
  watcher.on('change', () => {
    seen += 1;
    if (seen === changes) child.kill('SIGKILL');
  });
  const [status, signal] = (await once(child, 'exit')) as [number | null, string | null];
  watcher.close();
  expect(signal ?? status).toBe(signal === null ? 0 : 'SIGKILL');
  return signal !== null;
}

/** As the real tools say, which must agree. */
function opens(cwd: string, format: Format, password: string): boolean {
  const image = ['--image-opts', imageOf(format, password)];
  const io = runIn(cwd, [qemuIo ?? '', '-r', ...OBJECTS, '-c', 'read 0 64k', ...image]);
  const isOpen = io.out.includes('read 65536/65536');
  if (!isOpen) expect(io.err).toMatch(/Invalid password, cannot unlock any keyslot/);
  if (format === 'luks') {
    const args = ['luksOpen', '--test-passphrase', '-q', '-d', '-', 'image'];
    const { status } = spawnSync(cryptsetup ?? '', args, { cwd, input: password });
    expect(status, password).toBe(isOpen ? 0 : 2);
  }
  return isOpen;
}

function dataOf(format: Format, bytes: Uint8Array): Uint8Array {
  return (format === 'luks' ? bytes : luksOfQcow2(bytes)).subarray(PAYLOAD);
}

describe.skipIf(!usable)('img amend of keyslots, killed', () => {
  const images = new Map<Kind, Uint8Array>();
  let cwd = '';
  beforeAll(async () => {
    cwd = mkdtempSync(join(tmpdir(), 'luks-img-kill-'));
    for (const kind of KINDS) images.set(kind, (await makeLuks(kind.slots)).bytes);
  });
  afterAll(() => rmSync(cwd, { recursive: true, force: true }));

  const cases = MOMENTS.flatMap((moment) =>
    KINDS.flatMap((kind) =>
      (['qcow2', 'luks'] as const).map((format) => ({ name: kind.name, kind, format, moment })),
    ),
  );
  const sample = someOf(cases, 29).flatMap((one) => Array<typeof one>(runs(1, 4)).fill(one));

  it.each(sample)('$name in $format, at change $moment', async ({ kind, format, moment }) => {
    const luks = images.get(kind) as Uint8Array;
    const image = format === 'luks' ? luks : inQcow2(luks);
    writeFileSync(join(cwd, 'image'), image);
    const isCut = await runKilled(cwd, amendWords(kind, format, 'one'), moment);
    const good = PASSWORDS.filter((password) => opens(cwd, format, password));
    if (!isCut) expect(good).toEqual(kind.after);
    expect(good).not.toEqual([]);
    for (const password of PASSWORDS) {
      const either = [kind.slots.includes(password), kind.after.includes(password)];
      expect(either, password).toContain(good.includes(password));
    }
    const second = { options: 'state=active,new-secret=last,keyslot=4,iter-time=0' };
    const words = amendWords(second, format, good[0] ?? '');
    expect(runIn(cwd, [process.execPath, ...words])).toEqual({ out: '', err: '', status: 0 });
    expect(opens(cwd, format, 'last')).toBe(true);
    const now = readFileSync(join(cwd, 'image'));
    expect(Buffer.compare(dataOf(format, now), dataOf(format, image))).toBe(0);
  });
});

describe.skipIf(!usable)('img create of an encrypted image, killed', () => {
  let cwd = '';
  beforeAll(async () => {
    cwd = mkdtempSync(join(tmpdir(), 'luks-img-kill-'));
    const { bytes } = await makeLuks(['one']);
    writeFileSync(join(cwd, 'old-luks'), bytes);
    writeFileSync(join(cwd, 'old-qcow2'), inQcow2(bytes));
  });
  afterAll(() => rmSync(cwd, { recursive: true, force: true }));

  const cases = [1, 2, 3, 4, 5, 6, 8].flatMap((moment) =>
    (['qcow2', 'luks'] as const).map((format) => ({ format, moment })),
  );
  const sample = someOf(cases, 9).flatMap((one) => Array<typeof one>(runs(1, 8)).fill(one));

  it.each(sample)('$format, at change $moment', async ({ format, moment }) => {
    cpSync(join(cwd, `old-${format}`), join(cwd, 'image'));
    const quick = 'key-secret=new,iter-time=0';
    const inside = `format=luks,${quick}`.replaceAll(/(^|,)/g, '$1encrypt.');
    const options = format === 'luks' ? quick : inside;
    const words = ['img', 'create', '-q', '-f', format, ...OBJECTS, '-o', options, 'image', '1M'];
    const isCut = await runKilled(cwd, [program, ...words], moment);
    const io = [qemuIo ?? '', ...OBJECTS, '-c', 'write 0 64k', '--image-opts'];
    const { out, err } = runIn(cwd, [...io, imageOf(format, 'new')]);
    const isWhole = out.includes('wrote 65536/65536');
    if (!isCut) expect(isWhole).toBe(true);
    expect(err === '').toBe(isWhole);
    // It is never an image that nobody has the key of.
    expect(err).not.toContain('Invalid password');
    expect(runIn(cwd, [process.execPath, program, ...words])).toMatchObject({ err: '', status: 0 });
    expect(opens(cwd, format, 'new')).toBe(true);
  });
});
