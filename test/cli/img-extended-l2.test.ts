// SPDX-License-Identifier: Apache-2.0
// Images with extended L2 entries through the verbs of `img`, beside the real qemu-img: what is
// said, and what the images read as afterwards.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;
const X = '-o extended_l2=on,cluster_size=16k';

/** What is said does not depend on where clusters lie. */
const LINES = [
  'create -f qcow2 -o extended_l2=on,cluster_size=8k x 1M',
  'create -f qcow2 -o extended_l2=on,compat=0.10,cluster_size=8k x 1M',
  'create -f qcow2 -o extended_l2=on,refcount_bits=7,cluster_size=8k x 1M',
  'create -f qcow2 -o extended_l2=maybe x 1M',
  'create -f qcow2 -o extended_l2=off,preallocation=metadata -b a -F qcow2 x',
  `create -f qcow2 ${X},preallocation=metadata -b a -F qcow2 prealloc 3M`,
  `create -f qcow2 ${X},preallocation=full full 200k`,
  'map --output=json prealloc',
  'map --output=json full',
  'check prealloc',
  'check full',
  'info --output=json prealloc',
  'map a',
  'map --output=json a',
  'map --output=json o',
  'check o',
  `measure -O qcow2 ${X} a`,
  'measure --output=json -O qcow2 -o extended_l2=on --size 10G',
  'resize full 320k',
  'resize --preallocation=metadata full 400k',
  'map --output=json full',
  'resize --preallocation=metadata prealloc 4M',
  'map --output=json prealloc',
  'resize --shrink prealloc 2M',
  'resize --shrink prealloc 1001k',
  'check prealloc',
  'map --output=json prealloc',
  'check full',
];

/** What they leave is compared; where it lies is nobody's business. */
const CHANGES = [
  `convert -O qcow2 ${X} o converted`,
  `convert -c -O qcow2 ${X} o packed`,
  'convert -O qcow2 packed plain',
  `convert -O qcow2 ${X},preallocation=metadata a preallocated`,
  'convert -n -O qcow2 a converted2',
  'resize --preallocation=full full 501k',
  'commit -d t',
  'rebase -b a -F qcow2 t',
  "rebase -b '' o",
];
const LEFT = [
  'converted',
  'packed',
  'plain',
  'preallocated',
  'converted2',
  'full',
  'o',
  't',
  'prealloc',
];

describe.skipIf(isMissing)('extended L2 entries beside the real qemu-img', () => {
  let twins: TwinFolders;

  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([
      `qemu-img create -q -f qcow2 ${X} a 2M`,
      "qemu-io -c 'write -P 1 3k 70k' -c 'write -P 2 1M 1k' -c 'write -z 64k 4k' a",
      `qemu-img create -q -f qcow2 ${X} -b a -F qcow2 o 3M`,
      "qemu-io -c 'write -P 5 10k 1k' -c 'write -z 20k 8k' -c 'write -P 6 2500k 3k' o",
      'qemu-img create -q -f qcow2 -b o -F qcow2 t 4M',
      "qemu-io -c 'write -P 7 17k 2k' -c 'write -P 8 3500k 3k' t",
      `qemu-img create -q -f qcow2 ${X} converted2 2M`,
      "qemu-io -c 'write -P 9 0 150k' -c 'write -P 9 1000k 500' converted2",
    ]);
    twins.split();
  });
  afterAll(() => twins.remove());

  it.each(LINES)('answers the same: %s', (line) => {
    const real = twins.real(`qemu-img ${line}`);
    expect(twins.shim(`qemu-img ${line}`)).toEqual(real);
  });

  it('leaves images that read the same and are free of errors', () => {
    for (const line of CHANGES) {
      const real = twins.real(`qemu-img ${line}`);
      expect(twins.shim(`qemu-img ${line}`), line).toEqual(real);
    }
    for (const name of LEFT) {
      const compared = twins.real(`qemu-img compare theirs/${name} ours/${name}`, twins.folder);
      expect(compared.out, name).toContain('identical');
      expect(twins.real(`qemu-img check ${name}`, twins.ours).out, name).toContain('No errors');
      expect(twins.shim(`qemu-img check ${name}`, twins.theirs).out, name).toContain('No errors');
    }
  });
});
