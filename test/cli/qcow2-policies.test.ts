// SPDX-License-Identifier: Apache-2.0
// Open options of qcow2 beside the real qemu-io: damaged refcounts call a structure free, and
// which overlap checks keep a write from landing on it; which discards go down to the file.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { IoTwins } from '../helpers/io-twins.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const qemuImg = peer('qemu-img') ?? '';
const qemuIo = peer('qemu-io') ?? '';
const CLUSTER = 65_536;

const FLAGS = [
  'main-header',
  'active-l1',
  'active-l2',
  'refcount-table',
  'refcount-block',
  'snapshot-table',
  'inactive-l1',
  'inactive-l2',
  'bitmap-directory',
] as const;

const place = (bytes: Buffer, at: number): number =>
  Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n);

function placesOf(bytes: Buffer): Record<(typeof FLAGS)[number], number> {
  const snapshots = place(bytes, 64);
  let directory = 0;
  for (let at = 104; directory === 0; at += 8 + Math.ceil(bytes.readUInt32BE(at + 4) / 8) * 8) {
    if (bytes.readUInt32BE(at) === 0x2385_2875) directory = place(bytes, at + 8 + 16);
  }
  const inactive = place(bytes, snapshots);
  return {
    'main-header': 0,
    'active-l1': place(bytes, 40),
    'active-l2': place(bytes, place(bytes, 40)),
    'refcount-table': place(bytes, 48),
    'refcount-block': place(bytes, place(bytes, 48)),
    'snapshot-table': snapshots,
    'inactive-l1': inactive,
    'inactive-l2': place(bytes, inactive),
    'bitmap-directory': directory,
  };
}

const rows = FLAGS.flatMap((hit) => {
  const alone = `overlap-check.template=none,overlap-check.${hit}=on`;
  const without = `overlap-check.template=all,overlap-check.${hit}=off`;
  return ['', 'overlap-check=none', 'overlap-check=constant', 'overlap-check=all', alone, without]
    .map((options) => [hit, options] as const);
});

let twins: IoTwins;

describe.skipIf(qemuImg === '' || qemuIo === '')('open options beside the real qemu-io', () => {
  beforeAll(() => {
    twins = new IoTwins();
    twins.prepare(qemuImg, 'create', '-q', '-f', 'qcow2', 'a', '1M');
    twins.prepare(qemuIo, '-c', 'write 0 64k', 'a');
    twins.prepare(qemuImg, 'snapshot', '-c', 's', 'a');
    twins.prepare(qemuIo, '-c', 'write 0 64k', 'a');
    twins.prepare(qemuImg, 'bitmap', '--add', 'a', 'b');
    twins.prepare(qemuImg, 'create', '-q', '-f', 'qcow2', 'plain', '1M');
    const sound = readFileSync(join(twins.root, 'first', 'a'));
    const places = placesOf(sound);
    for (const [name, offset] of Object.entries(places)) {
      const bytes = Buffer.from(sound);
      bytes.writeUInt16BE(0, places['refcount-block'] + (offset / CLUSTER) * 2);
      writeFileSync(join(twins.root, 'first', name), bytes);
    }
    const plain = readFileSync(join(twins.root, 'first', 'plain'));
    const block = place(plain, place(plain, 48));
    plain.writeUInt16BE(0, block + (place(plain, 40) / CLUSTER) * 2);
    writeFileSync(join(twins.root, 'first', 'plain'), plain);
  });
  beforeEach(() => twins.reset());
  afterAll(() => twins.remove());

  it.each(someOf(rows, 4))('a write onto %s with %s ends alike', (name, options) => {
    const rest = options === '' ? '' : `,${options}`;
    const writes = ['write 64k 64k', 'write 128k 64k', 'write 0 64k'];
    const args = ['--image-opts', `driver=qcow2,file.driver=file,file.filename=${name}${rest}`];
    for (const write of writes) args.push('-c', write);
    const ours = twins.shim('qemu-io', args);
    const theirs = twins.real(qemuIo, args);
    // A directory that was overwritten is made anew here, and lost there.
    const lost = theirs.err.includes('Lost persistent bitmaps');
    expect(ours).toEqual(lost ? { ...theirs, err: '' } : theirs);
    const bits = (folder: string): Buffer => readFileSync(join(folder, name)).subarray(72, 80);
    if (ours.err !== '') expect(bits(twins.ours)).toEqual(bits(twins.theirs));
  });

  it.each(['overlap-check=none', 'overlap-check=constant', ''])(
    'a reopen with "%s" counts from then on',
    (options) => {
      const reopen = options === '' ? 'reopen -o pass-discard-other=on' : `reopen -o ${options}`;
      const args = ['-c', reopen, '-c', 'write 64k 64k', '-c', 'write 128k 64k', 'plain'];
      expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
    },
  );

  it.each(['pass-discard-request=off', 'pass-discard-request=on', 'pass-discard-other=on', ''])(
    'a discard with "%s" leaves the same bytes',
    (options) => {
      const rest = options === '' ? '' : `,${options}`;
      const args = [
        '--image-opts',
        `driver=qcow2,discard=unmap,file.driver=file,file.filename=a${rest}`,
      ];
      for (const word of ['discard 0 64k', 'write 256k 64k', 'write -z -u 256k 64k']) {
        args.push('-c', word);
      }
      expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
      const old = place(readFileSync(join(twins.root, 'first', 'a')), 40);
      const before = readFileSync(join(twins.root, 'first', 'a'));
      const data = place(before, place(before, old));
      const held = (folder: string): Buffer =>
        readFileSync(join(folder, 'a')).subarray(data, data + CLUSTER);
      expect(held(twins.ours).equals(held(twins.theirs))).toBe(true);
    },
  );
});
