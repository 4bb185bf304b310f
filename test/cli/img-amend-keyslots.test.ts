// SPDX-License-Identifier: Apache-2.0
// `img amend` of keyslots beside the real qemu-img: the same words and the same keyslots; what one
// adds the others open, all eight of them, and nothing is left of what was erased.
import { readFileSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { inQcow2, luksOfQcow2, makeLuks } from '../helpers/luks-images.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = [peer('qemu-img'), peer('qemu-io'), peer('cryptsetup')].includes(null);

const SECRETS = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'new'];
const OBJECTS = SECRETS.map((word) => `--object secret,id=${word},data=${word}`).join(' ');
const image = (name: string, secret = 'one'): string =>
  `--image-opts driver=luks,key-secret=${secret},file.filename=${name}`;
const amend = (options: string, name = 'a'): string =>
  `amend ${OBJECTS} -o ${options} ${image(name)}`;

const REFUSALS = [
  'amend -f luks -o help',
  'amend -f luks -o help a',
  'amend -f qcow2 -o help',
  'amend -f luks -o state=active a',
  `amend -f luks ${OBJECTS} -o state=inactive,keyslot=0 a`,
  `amend -f luks ${OBJECTS} -o foo=1 a`,
  `amend ${OBJECTS} -o help ${image('a')}`,
  amend('foo=1'),
  amend('secret=one,state=active,new-secret=two'),
  amend('encrypt.state=active'),
  amend('keyslot=x,state=active,new-secret=new'),
  amend('iter-time=x,state=active,new-secret=new'),
  amend('keyslot=8,state=active,new-secret=new'),
  amend('keyslot=-1,state=active,new-secret=new'),
  amend('keyslot=99999999999,state=active,new-secret=new'),
  amend('keyslot=9,state=inactive'),
  amend('keyslot=-1,state=inactive'),
  amend('keyslot=2147483648,state=inactive'),
  amend('keyslot=1'),
  amend('state='),
  amend('state=bogus'),
  amend('state=active'),
  amend('state=active,new-secret='),
  amend('state=active,new-secret=gone'),
  amend('state=active,new-secret=new,old-secret=one'),
  amend('state=active,new-secret=new,keyslot=0'),
  amend('state=inactive'),
  amend('state=inactive,old-secret=new'),
  amend('state=inactive,old-secret=gone'),
  amend('state=inactive,keyslot=0,old-secret=two'),
  amend('state=inactive,keyslot=0,new-secret=two'),
  amend('state=inactive,keyslot=0,iter-time=10'),
  amend('state=inactive,keyslot=5'),
  amend('state=inactive,keyslot=0', 'single'),
  amend('state=inactive,old-secret=one', 'single'),
  `amend ${OBJECTS} -o state=inactive,keyslot=0 ${image('a', 'new')}`,
  `amend ${OBJECTS} -o state=inactive,keyslot=0 ${image('a', 'gone')}`,
  `amend ${OBJECTS} -o state=inactive,keyslot=0 ${image('gone')}`,
  `amend ${OBJECTS} -o state=inactive,keyslot=0 --image-opts driver=luks,read-only=on,` +
    'key-secret=one,file.filename=a',
  `amend -f luks ${OBJECTS} -o encrypt.state=active,encrypt.new-secret=new a`,
  `amend -f qcow2 ${OBJECTS} -o encrypt.state=active,encrypt.new-secret=new q`,
];

const inside = `--image-opts driver=qcow2,encrypt.format=luks,encrypt.key-secret=one,`;
const amendInside = (options: string, flags = ''): string =>
  `amend ${flags} ${OBJECTS} -o ${options} ${inside}file.filename=e`;

const INSIDE = [
  amendInside('encrypt.keyslot=1'),
  amendInside('encrypt.state=bogus'),
  amendInside('encrypt.state=inactive,encrypt.keyslot=9'),
  amendInside('encrypt.state=inactive,encrypt.keyslot=4,size=3M'),
  amendInside('state=active'),
  amendInside('encrypt.format=luks,encrypt.state=active'),
  amendInside('encrypt.state=inactive,encrypt.old-secret=two', '-p'),
  amendInside('encrypt.state=inactive,encrypt.old-secret=one'),
  amendInside('encrypt.state=inactive,encrypt.keyslot=4,size=2M', '--force'),
  `amend -f qcow2 ${OBJECTS} -o encrypt.state=active,encrypt.new-secret=new e`,
];

const CHANGES = [
  amend('state=inactive,old-secret=two'),
  `amend -p ${OBJECTS} -o state=inactive,keyslot=3,old-secret=three ${image('a')}`,
  `amend --force ${OBJECTS} -o state=inactive,keyslot=3 ${image('a')}`,
  `amend --force ${OBJECTS} -o state=inactive,old-secret=one ${image('single')}`,
];

/** Of the keyslots alone: the rest is the same, and key material is not. */
const slotsOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.subarray(208, 592)).toString('hex');

describe.skipIf(isMissing)('img amend of keyslots and the real one', () => {
  let twins: TwinFolders;
  beforeAll(async () => {
    twins = new TwinFolders();
    const write = async (name: string, words: (string | undefined)[]): Promise<void> =>
      writeFileSync(join(twins.theirs, name), (await makeLuks(words)).bytes);
    await write('a', ['one', 'two', undefined, 'three', undefined, undefined, 'two']);
    await write('single', ['one']);
    await write('grow', ['one']);
    const { bytes } = await makeLuks(['one', undefined, 'two']);
    writeFileSync(join(twins.theirs, 'e'), inQcow2(bytes));
    twins.make(['qemu-img create -q -f qcow2 q 1M']);
    twins.split();
  });
  afterAll(() => twins.remove());

  const file = (name: string, folder = twins.ours): Uint8Array => readFileSync(join(folder, name));

  const opensInPeers = (name: string, word: string): void => {
    writeFileSync(join(twins.ours, 'word'), word);
    const test = `cryptsetup luksOpen --test-passphrase -q -d word ${name}`;
    expect(twins.real(test, twins.ours).status, `${name}, ${word}`).toBe(0);
    const io = `qemu-io -r ${OBJECTS} -c 'read 0 512' ${image(name, word)}`;
    const read = twins.real(io, twins.ours);
    expect(read.out + read.err, `${name}, ${word}`).toContain('read 512/512');
  };

  it('refuse with the same words, and change nothing', () => {
    const before = [file('a'), file('single')].map(slotsOf);
    for (const line of someOf(REFUSALS, 3)) {
      expect(twins.shim(`qemu-img ${line}`), line).toEqual(twins.real(`qemu-img ${line}`));
    }
    expect([file('a'), file('single')].map(slotsOf)).toEqual(before);
  });

  it('erase the same keyslots, and leave nothing of their key material', () => {
    const before = file('a');
    for (const line of CHANGES) {
      expect(twins.shim(`qemu-img ${line}`), line).toEqual(twins.real(`qemu-img ${line}`));
      for (const name of ['a', 'single']) {
        expect(slotsOf(file(name)), line).toBe(slotsOf(file(name, twins.theirs)));
      }
    }
    const after = file('a');
    for (const slot of [1, 3, 6]) {
      const at = 4096 + slot * 65_536;
      const same = after
        .subarray(at, at + 64_000)
        .reduce((count, byte, index) => count + (byte === before[at + index] ? 1 : 0), 0);
      expect(same, `keyslot ${slot}`).toBeLessThan(64_000 / 64);
    }
    opensInPeers('a', 'one');
  });

  it('do so within a qcow2 image', () => {
    for (const line of INSIDE) {
      expect(twins.shim(`qemu-img ${line}`), line).toEqual(twins.real(`qemu-img ${line}`));
    }
    const slots = [twins.ours, twins.theirs].map((folder) =>
      slotsOf(luksOfQcow2(file('e', folder))),
    );
    expect(slots[0]).toBe(slots[1]);
    const added = 'encrypt.state=active,encrypt.new-secret=new,encrypt.iter-time=1';
    expect(twins.shim(`qemu-img ${amendInside(added)}`)).toMatchObject({ err: '', status: 0 });
    const opts = inside.replace('=one', '=new');
    const read = twins.real(`qemu-io ${OBJECTS} -c 'read 0 2M' ${opts}file.filename=e`, twins.ours);
    expect(read.out + read.err).toContain('read 2097152/2097152');
  });

  it('lie in a header apart', () => {
    const both = 'driver=luks,key-secret=one,file.filename=payload,header.filename=head';
    for (const [name, bytes] of [['payload', new Uint8Array(65_536)], ['word', 'one']] as const) {
      writeFileSync(join(twins.ours, name), bytes);
    }
    writeFileSync(join(twins.ours, 'head'), new Uint8Array(2 ** 21));
    const quick = '--type luks1 --pbkdf-force-iterations 1000';
    const made = `cryptsetup luksFormat -q ${quick} --header head -d word payload`;
    expect(twins.real(made, twins.ours)).toMatchObject({ status: 0 });
    const options = 'state=active,new-secret=new,iter-time=1';
    const line = `amend ${OBJECTS} -o ${options} --image-opts ${both},header.driver=file`;
    expect(twins.shim(`qemu-img ${line}`)).toMatchObject({ err: '', status: 0 });
    writeFileSync(join(twins.ours, 'word'), 'new');
    const test = 'cryptsetup luksOpen --test-passphrase -q -d word --header head payload';
    expect(twins.real(test, twins.ours).status).toBe(0);
    expect(file('payload').every((byte) => byte === 0)).toBe(true);
  });

  it('add passwords in all eight keyslots, by which the others open the image', () => {
    for (const [slot, word] of SECRETS.slice(1, 8).entries()) {
      const options = `state=active,new-secret=${word},iter-time=1`;
      const { status, err } = twins.shim(`qemu-img ${amend(options, 'grow')}`);
      expect([status, err], `keyslot ${slot + 1}`).toEqual([0, '']);
    }
    for (const word of someOf(SECRETS.slice(0, 8), 3)) opensInPeers('grow', word);
    const ninth = amend('state=active,new-secret=new', 'grow');
    expect(twins.shim(`qemu-img ${ninth}`).err).toContain('all keyslots are in use');
  });

  it('open and erase what cryptsetup has added', () => {
    twins.shim(`qemu-img ${amend('state=inactive,old-secret=five', 'grow')}`);
    writeFileSync(join(twins.ours, 'one'), 'one');
    writeFileSync(join(twins.ours, 'new'), 'new');
    const iterations = '--pbkdf pbkdf2 --pbkdf-force-iterations 1000';
    const add = `cryptsetup luksAddKey -q ${iterations} -d one grow new`;
    const { status, err } = twins.real(add, twins.ours);
    expect([status, err]).toEqual([0, '']);
    const erase = `amend ${OBJECTS} -o state=inactive,old-secret=new ${image('grow', 'new')}`;
    expect(twins.shim(`qemu-img ${erase}`)).toMatchObject({ status: 0 });
    const again = `amend ${OBJECTS} -o state=inactive,old-secret=one ${image('grow', 'new')}`;
    expect(twins.shim(`qemu-img ${again}`).err).toContain('Invalid password');
    opensInPeers('grow', 'six');
  });

  it('keep away from an image that another process has open', async () => {
    const holder = spawn(peer('qemu-io') ?? '', ['-r', '-f', 'raw', 'a'], {
      cwd: twins.ours,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const exited = new Promise((resolve) => holder.once('exit', resolve));
    await new Promise<void>((resolve) => {
      let output = '';
      holder.stdout.on('data', (text: Buffer) => {
        output += text.toString();
        if (output.includes('KiB')) resolve();
      });
      holder.stdin.write('length\n');
    });
    const line = `qemu-img ${amend('state=inactive,old-secret=one')}`;
    expect(twins.shim(line)).toEqual(twins.real(line, twins.ours));
    expect(twins.shim(line).err).toContain('Failed to get shared "consistent read" lock');
    holder.stdin.end('quit\n');
    await exited;
  });
});
