// SPDX-License-Identifier: Apache-2.0
// `img amend` beside the real qemu-img: what it says, and what it leaves.
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

/** Refused, whatever was done before. */
const REFUSALS = [
  'amend',
  'amend a',
  'amend -o compat=0.10',
  'amend -o compat=0.10 a b',
  'amend -o compat=0.10 gone',
  'amend -f raw -o size=2M r',
  'amend -f raw -o help r',
  'amend -f foo -o help r',
  'amend -t foo -o size=3M a',
  "amend -o '' a",
  'amend -o compat=foo a',
  'amend -o foo=1 a',
  'amend -o lazy_refcounts=on,compat=0.10 a',
  'amend -o refcount_bits=3 a',
  'amend -o refcount_bits=128 a',
  'amend -o refcount_bits=08 a',
  'amend -o refcount_bits=0x80 a',
  'amend -o refcount_bits=0200 a',
  'amend -o refcount_bits=8,compat=0.10 a',
  'amend -o size=1000 a',
  'amend -o size=-1 a',
  'amend -o backing_file=r a',
  'amend -o backing_fmt=raw a',
  'amend -o data_file=x a',
  'amend -o data_file_raw=on a',
  'amend -o encrypt.state=active a',
  'amend -o encrypt.format=luks a',
  'amend -o encryption=on a',
  'amend -o cluster_size=4k a',
  'amend -o preallocation=off a',
  'amend -o compression_type=zstd a',
  'amend -o extended_l2=on a',
  'amend -f qcow2 --image-opts -o size=2M file.filename=a',
  'amend -Z -o size=2M a',
];

/** qemu-img takes seconds to leave the narrowest widths, and the longer the larger clusters are. */
const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const NARROW = isCampaign ? { alone: 1, shared: 2 } : { alone: 8, shared: 8 };

/** One after another. */
const CHANGES = [
  'amend -o compat=1.1 a',
  'amend -p -o lazy_refcounts=on a',
  'amend -o refcount_bits=64 a',
  `amend -o refcount_bits=${NARROW.alone} a`,
  'amend -o compat=0.10 a',
  'amend -o size=5M,refcount_bits=16 a',
  'amend -p -o compat=0.10 a',
  'amend -o lazy_refcounts=on a',
  'amend -o refcount_bits=8 a',
  'amend -q -p -o compat=v3 -o refcount_bits=32 a',
  'amend --force -o size=1M,lazy_refcounts=on a',
  'amend --image-opts -o lazy_refcounts=off driver=qcow2,file.filename=a',
  'amend -t none -o compat=0.10,refcount_bits=16 a',
  'amend -o compat=0.10 o',
  'amend -o compat=1.1 o',
  'amend -o backing_file=base,backing_fmt=raw o',
  'amend -o backing_file=base o',
  'amend -o refcount_bits=1 s',
  `amend -o refcount_bits=${NARROW.shared} s`,
  'amend -o refcount_bits=16,compat=0.10 s',
  'amend -o compat=0.10 x',
  'amend -o compat=0.10 z',
  'amend -o compat=0.10 zc',
  'amend -o refcount_bits=4 c',
  'amend -o refcount_bits=16,compat=0.10 c',
  'amend -o size=4M d',
  'amend -p -o size=1M d',
  'amend -o data_file_raw=on d',
  'amend -o data_file_raw=off d',
  'amend -p -o compat=0.10 d',
  'amend -o lazy_refcounts=on d',
  'amend -o size=5M,lazy_refcounts=on w',
  'amend -o data_file= n',
  'amend -o size=2M n',
];

const IMAGES = new Set(['a', 'o', 's', 'z', 'c', 'd', 'w']);

describe.skipIf(isMissing)('img amend and the real one', () => {
  let twins: TwinFolders;
  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([
      'qemu-img create -q -f qcow2 -o cluster_size=8k a 4M',
      "qemu-io -c 'write -P 1 0 1M' -c 'write -z 2M 256k' -c 'write -z 64k 64k' a",
      'qemu-img create -q -f raw base 2M',
      "qemu-io -f raw -c 'write -P 7 0 2M' base",
      'qemu-img create -q -f qcow2 -b base -F raw -o cluster_size=4k o 3M',
      "qemu-io -c 'write -P 1 0 100k' -c 'write -z 64k 256k' -c 'write -z 2900k 100k' o",
      'qemu-img create -q -f raw r 1M',
      'qemu-img create -q -f qcow2 -o cluster_size=8k s 1M',
      "qemu-io -c 'write -P 1 0 300k' s",
      'qemu-img snapshot -c first s',
      'qemu-img create -q -f qcow2 -o extended_l2=on x 1M',
      'qemu-img create -q -f qcow2 -o compression_type=zstd z 1M',
      'qemu-img convert -c -O qcow2 -o compression_type=zstd base zc',
      'qemu-img convert -c -O qcow2 -o cluster_size=512 base c',
      'qemu-img create -q -f qcow2 -o data_file=d.raw d 2M',
      'qemu-img create -q -f qcow2 -o data_file=w.raw,data_file_raw=on w 2M',
      "qemu-io -c 'write -P 5 100k 1M' w",
      "qemu-io -c 'write -P 5 100k 1M' d",
      'qemu-img create -q -f qcow2 -o data_file=n.raw n 1M',
    ]);
    twins.split();
  });
  afterAll(() => twins.remove());

  it('says the same, and leaves images that say and hold the same', { timeout: 300_000 }, () => {
    const known = (text: string): string => text.replace(/disk size: .*\n/, '');
    const lines = [...someOf(REFUSALS, 4), ...CHANGES];
    for (const [number, line] of lines.entries()) {
      const mine = twins.shim(`qemu-img ${line}`);
      const theirs = twins.real(`qemu-img ${line}`);
      expect(mine, line).toEqual(theirs);
      // Once for each image in the end, and now and then.
      const image = line.split(' ').at(-1)?.replace(/^.*=/, '') ?? '';
      const isLast = lines.slice(number + 1).every((later) => !later.endsWith(` ${image}`));
      if (theirs.status !== 0 || !IMAGES.has(image)) continue;
      if (!isLast && number % 5 !== 0) continue;
      const infos = [twins.ours, twins.theirs].map((folder) =>
        known(twins.real(`qemu-img info ${image}`, folder).out),
      );
      expect(infos[0], line).toBe(infos[1]);
      expect(twins.real(`qemu-img check -q ${image}`, twins.ours).status, line).toBe(0);
      const other = join(twins.theirs, image);
      const same = twins.real(`qemu-img compare ${image} ${other}`, twins.ours);
      expect(same.status, `${line}: ${same.out}${same.err}`).toBe(0);
    }
  });

  it('lists what can be amended', () => {
    const { out, status } = twins.shim('qemu-img amend -f qcow2 -o help');
    const theirs = twins.real('qemu-img amend -f qcow2 -o help').out;
    expect([out, status]).toEqual([theirs, 0]);
  });
});
