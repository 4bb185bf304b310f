// SPDX-License-Identifier: Apache-2.0
// `img` on images with external data files beside the real qemu-img: what both say, and the bytes
// of every file that they leave. Between the lines the real qemu-io writes to both folders, so
// that it works on what is made here.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { nativeAddon } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const MAKE_LINES = [
  'qemu-img create -q -f raw base 3M',
  "qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 1M 128k' -c 'write -P 3 2M 1M' base",
  'qemu-img create -q -f qcow2 plain 1M',
];

/** Each leaves the same bytes in both folders. */
const SAME_LINES = [
  'qemu-img create -f qcow2 -o data_file=a.raw a 1M',
  'qemu-img create -f qcow2 -o data_file=b.raw,data_file_raw=on b 1M',
  'qemu-img create -q -f qcow2 -o data_file=c.raw,preallocation=metadata,cluster_size=4k c 9M',
  'qemu-img create -q -f qcow2 -o data_file=d.raw,preallocation=full d 1M',
  'qemu-img create -q -f qcow2 -o data_file=e.raw,extended_l2=on,data_file_raw=on e 1M',
  'qemu-img create -q -f qcow2 -o data_file=f.raw -b a -F qcow2 f 2M',
  'qemu-img create -f qcow2 -o data_file_raw=on x 1M',
  'qemu-img create -f qcow2 -o data_file=x.raw,compat=0.10 x 1M',
  'qemu-img create -f qcow2 -o data_file=x.raw,data_file_raw=on -b a -F qcow2 x 1M',
  'qemu-img create -f qcow2 -o data_file=gone/x.raw x 1M',
  'qemu-img info --output=human c',
  'qemu-img check d',
  'qemu-img map --output=json d',
  "qemu-io -c 'write -P 9 0 1M' -c 'write -z 64k 64k' -c 'write -z -u 192k 64k' b",
  "qemu-io -c 'discard 320k 64k' b",
  'qemu-img map --output=json b',
  'qemu-img map b',
  "qemu-io -c 'write -P 4 0 64k' -c 'write -P 5 200k 10k' -c 'write -z 512k 64k' a",
  'qemu-img check --output=json a',
  'qemu-img map --output=json a',
  'qemu-img resize a +512k',
  'qemu-img resize --preallocation=metadata a +512k',
  'qemu-img resize --preallocation=falloc a +512k',
  'qemu-img map --output=json a',
  'qemu-img resize --shrink a 1M',
  'qemu-img resize b +1M',
  'qemu-img resize --shrink b 512k',
  'qemu-img create -q -f qcow2 -o data_file=k.raw -b base -F raw k 1100k',
  'qemu-img resize k 1300k',
  'qemu-img compare -F raw k base',
  'qemu-img check a',
  'qemu-img map --output=json b',
  'qemu-img convert -f raw -O qcow2 -o data_file=g.raw,data_file_raw=on base g',
  'qemu-img convert -f raw -O qcow2 -S 4k -o data_file=h.raw,cluster_size=4k base h',
  'qemu-img compare -f qcow2 -F raw h h.raw',
  'qemu-img compare -f raw -F raw base g.raw',
  'qemu-img convert -n -O qcow2 a g',
  'qemu-img convert -c -f raw -O qcow2 -o data_file=i.raw base i',
  'qemu-img rebase -u -F qcow2 -b a b',
  "qemu-io -c 'write -P 6 64k 64k' -c 'write -P 7 300k 1k' f",
  'qemu-img commit f',
  'qemu-img map --output=json f',
  'qemu-img snapshot -c s a',
  'qemu-img snapshot -a s a',
  'qemu-img snapshot -d s a',
  'qemu-img measure -O qcow2 -o data_file=x,data_file_raw=on --size 1M',
  'qemu-img info --image-opts driver=qcow2,file.filename=a,data-file.filename=gone',
  'qemu-img map --image-opts driver=qcow2,file.filename=plain,data-file.filename=a.raw',
  'qemu-img map --image-opts driver=qcow2,file.filename=a,data-file.filename=gone',
  'mv a.raw moved.raw',
  'qemu-img info a',
  'qemu-img check a',
  'qemu-img map a',
  'qemu-img create -q -f qcow2 -b a -F qcow2 j',
  'mv moved.raw a.raw',
];

/** Allocated bytes differ with the host's mood. */
const withoutSizes = (text: string): string =>
  text.replace(/disk size: .*/, '').replace(/"actual-size": \d+/, '');

describe.skipIf(isMissing)('img on data files as the real qemu-img', () => {
  const twins = new TwinFolders();
  afterAll(() => twins.remove());
  beforeAll(() => {
    twins.make(MAKE_LINES);
    twins.split();
  });

  it('says the same and leaves the same bytes', () => {
    for (const line of SAME_LINES) {
      const theirs = twins.real(line);
      const ours = twins.shim(line);
      if (!line.startsWith('qemu-io')) {
        expect(withoutSizes(ours.out), line).toBe(withoutSizes(theirs.out));
        expect(ours.err, line).toBe(theirs.err);
      }
      expect(ours.status, line).toBe(theirs.status);
      if (!/ (info|map|check|measure|compare) /.test(line)) expectSameFiles(line);
    }
    for (const image of ['b', 'c', 'd', 'e', 'f', 'g', 'h']) {
      const judged = twins.real(`qemu-img check ${image}`, twins.ours);
      expect(judged.status, `${image}: ${judged.out}`).toBe(0);
    }
  }, 120_000);

  function expectSameFiles(line: string): void {
    const names = readdirSync(twins.theirs).toSorted();
    expect(readdirSync(twins.ours).toSorted(), line).toEqual(names);
    // Metadata may lie elsewhere once it was taken at different times; the data never does.
    // Without the addon nothing is punched: what was discarded is still in the file.
    if (nativeAddon() === null) return;
    for (const name of names.filter((each) => each.endsWith('.raw'))) {
      const theirs = readFileSync(join(twins.theirs, name));
      const isSame = theirs.equals(readFileSync(join(twins.ours, name)));
      expect(isSame, `${name} after ${line}`).toBe(true);
    }
  }
});
