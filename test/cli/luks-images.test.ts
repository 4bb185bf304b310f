// SPDX-License-Identifier: Apache-2.0
// `img` on LUKS images beside the real qemu-img: what both say, what both leave behind, and that
// each reads what the other wrote.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { runIn } from '../helpers/command-line.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { TwinFolders } from '../helpers/twin-folders.js';
import { CHANGING, REFUSED, REFUSED_LATE, SECRETS } from './luks-lines.js';

const SECRET = '--object secret,id=s0,data=pw';
const OPTIONS = 'driver=luks,key-secret=s0,file.filename=';

/** `S`, `O=FILE`, `J=FILE` (a json: name) and `B=OVERLAY,BACKING` in full. */
function spelled(line: string): string {
  return line
    .replace(/^S (\w+)/, `$1 ${SECRET}`)
    .replace(/^/, 'qemu-img ')
    .replaceAll(/(?<=[ =])O=/g, OPTIONS)
    .replace(
      /(?<= )J=(\w+)/,
      '\'json:{"driver":"luks","key-secret":"s0","file":{"driver":"file","filename":"$1"}}\'',
    )
    .replace(
      /(?<= )B=(\w+),(\w+)/,
      'driver=qcow2,file.filename=$1,backing.driver=luks,backing.key-secret=s0,' +
        'backing.file.filename=$2',
    );
}

/** Allocated bytes differ with the host's mood. */
const withoutSizes = (text: string): string =>
  text.replace(/disk size: .*/g, '').replaceAll(/"actual-size": \d+/g, '');

describe.skipIf(peer('qemu-img') === null)('img on LUKS images as the real qemu-img', () => {
  const twins = new TwinFolders();
  afterAll(() => twins.remove());
  beforeAll(() => {
    const put = (name: string, bytes: Uint8Array): void =>
      writeFileSync(join(twins.theirs, name), bytes);
    const plain = new Uint8Array(3 * 1024 * 1024).fill(7, 0, 1_000_001);
    put('plain', plain.fill(9, 2_000_000, 2_300_000));
    put('binary', Buffer.from([0xff, 0xfe]));
    put('nul', Buffer.from('p\0w'));
    put('word', Buffer.from('pw'));
    const make = `create -q -f luks -o key-secret=s0,iter-time=1`;
    for (const image of ['a 1M', 'b 1000001', 'c 64k']) {
      const made = twins.shim(spelled(`S ${make} ${image}`), twins.theirs);
      expect(made.status, made.err).toBe(0);
    }
    twins.split();
  });

  function expectSame(line: string): void {
    const theirs = twins.real(spelled(line));
    const ours = twins.shim(spelled(line));
    expect(withoutSizes(ours.out), line).toBe(withoutSizes(theirs.out));
    expect(ours.err, line).toBe(theirs.err);
    expect(ours.status, line).toBe(theirs.status);
  }

  it('what cannot be is refused in the same words', () => {
    for (const line of [...someOf(REFUSED, 6), ...someOf(REFUSED_LATE, 6)]) expectSame(line);
    const names = readdirSync(twins.ours).toSorted();
    expect(names).toEqual(['a', 'b', 'binary', 'c', 'nul', 'plain', 'word']);
  });

  it('secrets are taken and refused in the same words', () => {
    for (const objects of someOf(SECRETS, 4)) {
      expectSame(`check ${objects} --image-opts O=c`);
    }
  });

  it('images change in the same way', () => {
    for (const line of CHANGING) {
      expectSame(line);
      if (!line.endsWith(' out')) continue;
      const theirs = readFileSync(join(twins.theirs, 'out'));
      expect(readFileSync(join(twins.ours, 'out')).equals(theirs), line).toBe(true);
    }
  }, 60_000);

  it('what is created is opened by the real one, and a failure leaves no file', () => {
    const options = 'key-secret=s0,iter-time=1,preallocation=falloc';
    const line = spelled(`S create -f luks -o ${options} new 1000001`);
    const made = twins.shim(line);
    const said = "Formatting 'new', fmt=luks size=1000001 key-secret=s0 iter-time=1";
    expect(made).toEqual({ out: `${said} preallocation=falloc\n`, err: '', status: 0 });
    expect(readFileSync(join(twins.ours, 'new')).length).toBe(2_068_480 + 1_000_001);
    const opened = twins.real(spelled('S map --output=json --image-opts O=new'), twins.ours);
    expect(opened.out).toContain('"length": 1000448');
    const convert = 'S convert -f raw -O luks -o key-secret=s0,iter-time=1 plain new';
    const read = twins.shim(spelled(convert));
    expect(read.err).toBe('');
    const compared = spelled('S compare --image-opts O=new driver=raw,file.filename=plain');
    expect(twins.real(compared, twins.ours).out).toBe('Images are identical.\n');
    const failed = twins.shim(spelled('create -f luks -o key-secret=s0 none 1M'));
    expect(failed.status).toBe(1);
    expect(readdirSync(twins.ours)).not.toContain('none');
  });

  it('an image that was there is kept when a new one cannot be made in its place', () => {
    const before = readFileSync(join(twins.ours, 'c'));
    const failed = twins.shim(spelled('create -f luks -o key-secret=gone c 1M'));
    expect(failed.status).toBe(1);
    expect(readFileSync(join(twins.ours, 'c')).equals(before)).toBe(true);
  });

  it.skipIf(peer('qemu-io') === null)('io reads and writes the same bytes', () => {
    const commands = [
      'read 100 1000', 'write -P 7 100 1000', 'read -P 7 100 1000', 'write -z 0 16k',
      'read -P 0 0 16k', 'discard 0 16k', 'read -P 0 0 16k', 'write -zu 16k 16k', 'map',
      'alloc 0 64k', 'truncate 100k', 'length', 'truncate 90001', 'length', 'write -n 0 4k',
      'write -c 0 64k', 'write -zn 0 4k', 'write -f -P 2 0 512', 'writev -P 3 1 511 600',
      'aio_write -P 4 4k 4k', 'aio_flush', 'flush', 'read 5M 1k', 'read -P 3 513 512',
      'write -P 5 90000 200', 'info',
    ];
    const image = ['--image-opts', `${OPTIONS}c`];
    const asked = commands.flatMap((command) => ['-c', command]);
    const args = ['--object', 'secret,id=s0,data=pw', ...asked, ...image];
    const theirs = runIn(twins.theirs, [peer('qemu-io') ?? '', ...args]);
    const ours = runIn(twins.ours, [join(twins.folder, 'bin/qemu-io'), ...args]);
    const timeless = (text: string): string => text.replaceAll(/ops;.*/g, '');
    expect(timeless(ours.out)).toBe(timeless(theirs.out));
    expect([ours.err, ours.status]).toEqual([theirs.err, theirs.status]);
    const [left, right] = [twins.theirs, twins.ours].map((path) => readFileSync(join(path, 'c')));
    expect(right?.equals(left ?? Buffer.alloc(0))).toBe(true);
  });

  it.skipIf(peer('cryptsetup') === null)('a header alone is what cryptsetup takes', () => {
    const options = 'key-secret=s0,iter-time=0,detached-header=on';
    const made = twins.shim(spelled(`S create -q -f luks -o ${options} header 1M`));
    expect([made.err, made.status]).toEqual(['', 0]);
    expect(readFileSync(join(twins.ours, 'header')).length).toBe(2_068_480);
    const opening = ['luksOpen', '--test-passphrase', '--key-file', 'word', '--header', 'header'];
    const opened = runIn(twins.ours, [peer('cryptsetup') ?? '', ...opening, 'plain']);
    expect([opened.err, opened.status]).toEqual(['', 0]);
    const place = 'driver=luks,key-secret=s0,header.filename=header,file.filename=payload';
    writeFileSync(join(twins.ours, 'payload'), new Uint8Array(3 * 1024 * 1024));
    const convert = `S convert -n -f raw --target-image-opts plain ${place}`;
    expect(twins.shim(spelled(convert)).err).toBe('');
    const payload = readFileSync(join(twins.ours, 'payload'));
    expect(payload.equals(readFileSync(join(twins.ours, 'plain')))).toBe(false);
    const compared = `S compare --image-opts ${place} driver=raw,file.filename=plain`;
    expect(twins.shim(spelled(compared)).out).toBe('Images are identical.\n');
    expect(twins.shim(spelled('info header')).err).toContain('a LUKS header without a payload');
  });

  it('a size is measured as the file gets it', () => {
    const options = 'key-secret=s0,cipher-alg=aes-128,cipher-mode=cbc';
    const line = `S measure -O luks -o ${options} --size 1001`;
    const { out } = twins.shim(spelled(line));
    // Eight keyslots of 4,000 times 16 bytes, each in whole pages.
    const header = 4096 + 8 * Math.ceil((16 * 4000) / 4096) * 4096;
    expect(out).toBe(`required size: ${header + 1001}\nfully allocated size: ${header + 1001}\n`);
  });
});
