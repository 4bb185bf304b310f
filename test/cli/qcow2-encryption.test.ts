// SPDX-License-Identifier: Apache-2.0
// Encrypted qcow2 images beside the real tools: each reads and checks what the other made, and both
// say the same of images, options and secrets that are refused.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const SECRET = '--object secret,id=s,data=geheim';
const IMAGE = 'driver=qcow2,encrypt.key-secret=s,file.filename=';
const LUKS = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
const AES = 'encrypt.format=aes,encrypt.key-secret=s';
/** Its calibration fails now and then on a busy machine. */
const ATTEMPTS = 20;

/** Options of images that both sides make; the size is 1 MiB. */
const KINDS: readonly string[] = [
  `${LUKS},cluster_size=4k`,
  AES,
  `${LUKS},extended_l2=on,cluster_size=16k,encrypt.cipher-alg=aes-128`,
  `${LUKS},preallocation=metadata`,
  `${LUKS},data_file=outside,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64`,
  `${AES},cluster_size=512,refcount_bits=8`,
  `${LUKS},compat=0.10,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,` +
    'encrypt.ivgen-hash-alg=sha256',
  `${LUKS},encrypt.cipher-alg=aes-128,encrypt.cipher-mode=ecb,encrypt.hash-alg=sha1`,
  `${LUKS},cluster_size=512,encrypt.hash-alg=sha512`,
  'encryption=on,encrypt.key-secret=s',
];

/** `S`, `L` and `A` in full; `I=FILE` is an image by options. */
const spelled = (line: string): string =>
  line
    .replaceAll(/(?<= )S(?= )/g, SECRET)
    .replaceAll(/(?<=[ ,])LUKS(?=[ ,]|$)/g, LUKS)
    .replaceAll(/(?<=[ ,])AES(?=[ ,]|$)/g, AES)
    .replaceAll(/(?<=[ =])I=/g, IMAGE);

const REFUSED: readonly string[] = [
  'check luks',
  'check -r all luks',
  'map aes',
  'snapshot -l luks',
  'snapshot -c x luks',
  'check --object secret,id=s,data=falsch --image-opts I=luks',
  'check --image-opts I=luks',
  'map S --image-opts driver=qcow2,encrypt.format=aes,encrypt.key-secret=s,file.filename=luks',
  'map S --image-opts driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=aes',
  'map S --image-opts driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=plain',
  'map S --image-opts driver=qcow2,encrypt.format=foo,encrypt.key-secret=s,file.filename=luks',
  'map S --image-opts driver=qcow2,encrypt.bla=foo,encrypt.key-secret=s,file.filename=luks',
  'map S --image-opts I=luks',
  'rebase S -b other -F qcow2 --image-opts I=luks',
  'create -f qcow2 -o encrypt.format=luks x 1M',
  'create -f qcow2 -o encryption=on x 1M',
  'create -f qcow2 -o AES x 1M',
  'create S -f qcow2 -o encrypt.format=bogus,encrypt.key-secret=s x 1M',
  'create S -f qcow2 -o encrypt.key-secret=s x 1M',
  'create S -f qcow2 -o encryption=on,LUKS x 1M',
  'create S -f qcow2 -o AES,encrypt.cipher-alg=aes-128 x 1M',
  'create S -f qcow2 -o LUKS,encrypt.cipher-alg=foo x 1M',
  'create S -f qcow2 -o LUKS,encrypt.iter-time=x x 1M',
  'measure -O qcow2 --size 4M -o encrypt.format=luks',
  'measure -O qcow2 --size 4M -o LUKS',
  'convert S -c -O qcow2 -o LUKS plain x',
  'convert S -c -O qcow2 -o encryption=on,encrypt.key-secret=s,preallocation=full plain x',
];

const SAID: readonly string[] = [
  'info luks',
  'info --output=json luks',
  'info aes',
  'info S --image-opts I=luks',
  'measure S -O qcow2 --size 4M -o AES',
  'measure S -O qcow2 --image-opts I=luks',
  'check S --image-opts I=luks',
  // Names the image as it was given.
  'check S --output=json --image-opts I=luks',
  'map S --output=json --image-opts I=luks',
  'map S --output=json --image-opts I=aes',
  'create -f qcow2 -o encryption=off off 1M',
  'resize S --image-opts I=luks 2M',
  'snapshot -c y S --image-opts I=luks',
  'map S --output=json --image-opts I=luks',
];

const withoutSizes = (text: string): string =>
  text.replace(/disk size: .*/g, '').replaceAll(/"actual-size": \d+/g, '');

const isPossible = peer('qemu-img') !== null && peer('qemu-io') !== null;

describe.skipIf(!isPossible)('encrypted qcow2 images beside the real tools', () => {
  const twins = new TwinFolders();
  afterAll(() => twins.remove());

  function real(line: string, cwd = twins.theirs): string {
    let said = '';
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const { status, out, err } = twins.real(spelled(line), cwd);
      if (status === 0) return out;
      said = `${out}${err}`;
      if (!said.includes('CPU usage')) break;
    }
    throw new Error(`${line}: ${said}`);
  }

  function ours(line: string, cwd = twins.ours): string {
    const { status, out, err } = twins.shim(spelled(line), cwd);
    expect({ status, err }, line).toEqual({ status: 0, err: '' });
    return out;
  }

  const write = (name: string, ...commands: readonly string[]): void => {
    const words = commands.map((command) => `-c '${command}'`).join(' ');
    real(`qemu-io S ${words} --image-opts I=${name}`);
  };

  beforeAll(() => {
    real('qemu-img create -q -f qcow2 plain 1M');
    for (const [index, options] of KINDS.entries()) {
      if (!someOf(KINDS, 5).includes(options)) continue;
      const outside = options.replace('outside', `outside${index}`);
      real(`qemu-img create -q S -f qcow2 -o ${outside} kind${index} 1M`);
      write(`kind${index}`, 'write -P 7 3k 100k', 'write -z 200k 50k', 'write -P 8 500k 1k');
    }
    // Made here, for that is quick.
    ours('qemu-img create -q S -f qcow2 -o LUKS luks 1M', twins.theirs);
    write('luks', 'write -P 3 64k 64k', 'write -P 4 300k 512');
    real('qemu-img snapshot -c x S --image-opts I=luks');
    write('luks', 'write -P 5 64k 64k');
    real('qemu-img create -q S -f qcow2 -o AES aes 1M');
    twins.split();
  });

  function expectSame(line: string): void {
    const theirs = twins.real(spelled(`qemu-img ${line}`));
    const mine = twins.shim(spelled(`qemu-img ${line}`));
    expect(withoutSizes(mine.out), line).toBe(withoutSizes(theirs.out));
    expect(mine.err, line).toBe(theirs.err);
    expect(mine.status, line).toBe(theirs.status);
  }

  it.each(someOf(KINDS, 5))('images with %s are read, written and made both ways', (options) => {
    const index = KINDS.indexOf(options);
    const name = `kind${index}`;
    ours(`qemu-img convert S --image-opts I=${name} -O raw raw`);
    const bytes = readFileSync(join(twins.ours, 'raw'));
    real(`qemu-img convert S --image-opts I=${name} -O raw raw`);
    // What was never written of a preallocated image is noise to the reference.
    const cut = options.includes('preallocation') ? 3072 : 0;
    const end = cut === 0 ? bytes.length : 100 * 1024;
    const theirs = readFileSync(join(twins.theirs, 'raw'));
    expect(Buffer.compare(bytes.subarray(cut, end), theirs.subarray(cut, end))).toBe(0);
    const made = `made${index}`;
    const outside = options.replace('outside', `ours${index}`);
    ours(`qemu-img convert -f raw -O qcow2 S -o ${outside} raw ${made}`);
    real(`qemu-img check -q S --image-opts I=${made}`, twins.ours);
    real(`qemu-img compare -q S --image-opts I=${made} driver=raw,file.filename=raw`, twins.ours);
    const commands = "-c 'write -P 9 1k 3k' -c 'write -z 64k 64k' -c 'write -P 1 900k 99k'";
    real(`qemu-io S ${commands} --image-opts I=${made}`, twins.ours);
    ours(`qemu-img check -q S --image-opts I=${made}`);
    ours(`qemu-img convert S --image-opts I=${made} -O raw again`);
    real(
      `qemu-img compare -q S --image-opts I=${made} driver=raw,file.filename=again`,
      twins.ours,
    );
  });

  it('what cannot be is refused in the same words', () => {
    for (const line of someOf(REFUSED, 2)) expectSame(line);
  });

  it('images are shown, measured and changed alike', () => {
    for (const line of SAID) expectSame(line);
  });

  it('nothing is compressed into one that is there: the reference stores that in the clear', () => {
    const line = 'qemu-img convert S -c -n plain --target-image-opts I=luks';
    const { status, err } = twins.shim(spelled(line));
    expect(status).toBe(1);
    expect(err).toContain('Compression and encryption not supported at the same time\n');
  });

  it('measuring adds the clusters of the LUKS header', () => {
    const line = 'qemu-img measure S -O qcow2 --size 4M -o LUKS';
    expect(ours(line)).toBe('required size: 2424832\nfully allocated size: 6619136\n');
    const small = 'encrypt.cipher-alg=aes-128,cluster_size=4k';
    expect(ours(`${line},${small}`)).toBe(
      'required size: 1077248\nfully allocated size: 5271552\n',
    );
  });

  it('a backing file takes its secret beside the name and the format in the header', () => {
    ours('qemu-img create -q -f qcow2 -u -b luks -F qcow2 over 1M', twins.theirs);
    ours('qemu-img create -q -f qcow2 -u -b over -F qcow2 top 1M', twins.theirs);
    twins.split();
    const lines = [
      'driver=qcow2,file.filename=over,backing.encrypt.key-secret=s',
      'file.filename=over,backing.encrypt.key-secret=s,backing.file.locking=off',
      'driver=qcow2,file.filename=top,backing.backing.encrypt.key-secret=s',
      'driver=qcow2,file.filename=over,backing.driver=qcow2,backing.file.locking=off,' +
        'backing.encrypt.key-secret=s',
      'driver=qcow2,file.filename=over,backing.file.driver=file,backing.encrypt.key-secret=s',
      'driver=qcow2,file.filename=over,backing.encrypt.key-secret=t',
      'driver=qcow2,file.filename=over,backing.encrypt.format=aes,backing.encrypt.key-secret=s',
      'driver=qcow2,file.filename=over,backing.node-name=b',
      'driver=qcow2,file.filename=plain,backing.encrypt.key-secret=s',
    ];
    const opened = lines.filter((options) => {
      const line = spelled(`qemu-io S -r -c 'read -q -P 5 64k 64k' --image-opts ${options}`);
      const theirs = twins.real(line);
      expect(twins.shim(line), options).toEqual(theirs);
      return theirs.status === 0;
    });
    expect(opened).toEqual(lines.slice(0, 5));
  });

  it('a snapshot is decrypted as it was', () => {
    ours('qemu-img convert S --image-opts I=luks -l x -O raw snapshot');
    const bytes = readFileSync(join(twins.ours, 'snapshot'));
    expect(bytes.subarray(65_536, 131_072).every((byte) => byte === 3)).toBe(true);
    expect(bytes.subarray(300 * 1024, 300 * 1024 + 512).every((byte) => byte === 4)).toBe(true);
  });
});
