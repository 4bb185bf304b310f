// SPDX-License-Identifier: Apache-2.0
// `img measure`, `img dd` and `img bench` beside the real qemu-img: what they say and write.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Outcome } from '../helpers/command-line.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const MEASURE_LINES = [
  'measure',
  'measure a',
  'measure -O qcow2 a',
  'measure -O raw a',
  'measure -O qcow2 c',
  'measure --output json -O qcow2 a',
  'measure --output=json -O raw o',
  'measure -O qcow2 o',
  'measure -O qcow2 v2',
  'measure -O qcow2 --size 1G',
  'measure --size 1G',
  'measure --size 1x',
  'measure --size 1G a',
  'measure -O nope a',
  'measure -O qcow2 -o cluster_size=4k --size 1T',
  'measure -O qcow2 -o cluster_size=512,refcount_bits=64 --size 10G',
  'measure -O qcow2 -o cluster_size=2M,refcount_bits=1 --size 10T',
  'measure -O qcow2 -o preallocation=full --size 1G',
  'measure -O qcow2 -o preallocation=metadata a',
  'measure -O qcow2 -o refcount_bits=64 a',
  'measure -O qcow2 -o extended_l2=on --size 10G',
  'measure -O qcow2 -o foo=1 a',
  'measure -O qcow2 -o size=5M --size 7M',
  'measure -f raw -O qcow2 a',
  'measure --image-opts -O qcow2 driver=qcow2,file.filename=a',
  'measure -O qcow2 gone',
  'measure -O qcow2 --output=xml a',
  'measure -O qcow2 -o backing_file=a,backing_fmt=qcow2 o',
  'measure -O qcow2 -o compat=0.10 a',
  'measure -O qcow2 -o cluster_size=3k a',
  'measure -O qcow2 -o data_file=x a',
  'measure -O null-co a',
  'measure -O file a',
  'measure -O qcow2 tiny',
  'measure -O raw tiny',
  'measure -O qcow2 --size 0',
  'measure -O qcow2 --size 8E',
  'measure -O qcow2 --size 1000',
  'measure a b',
  'measure -U a',
  'measure -O qcow2 -o preallocation=foo a',
  'measure -f qcow2 --size 1M',
  'measure -O qcow2 -o refcount_bits=3 a',
  'measure -O qcow2 -o lazy_refcounts=on,compat=0.10 a',
  'measure -O raw -o size=3M a',
  'measure -O qcow2 -o compression_type=zstd a',
  'measure -O qcow2 -o help a',
  'measure -O qcow2 -o compat=9 a',
  'measure -O qcow2 -o compat=0.10,refcount_bits=8 a',
  'measure -O qcow2 -o cluster_size=512 --size 300G',
  'measure -O raw --size 1000',
  'measure -O qcow2 -o backing_fmt=nope --size 1M',
  'measure -O qcow2 -o extended_l2=on,cluster_size=4k a',
  'measure -O raw -o preallocation=metadata a',
];

const DD_LINES = [
  'dd',
  'dd if=ran',
  'dd of=x',
  'dd if=ran of=x -f raw',
  'dd if=ran of=x2 bs=1M -f raw',
  'dd if=ran of=x3 bs=1M count=2 -f raw',
  'dd if=ran of=x4 bs=1M count=2 skip=1',
  'dd if=ran of=x5 bs=1M skip=9',
  'dd -O qcow2 if=a of=x6 bs=64k',
  'dd if=gone of=x7',
  'dd if=ran of=/nodir/x',
  'dd if=ran of=x bs=0',
  'dd if=ran of=x bs=foo',
  'dd if=ran of=x bs=3G',
  'dd if=ran of=x bs=-1',
  'dd if=ran of=x count=x',
  'dd if=ran of=x skip=-3',
  'dd if=ran of=x seek=1',
  'dd if=ran of=x foo',
  'dd -O nope if=ran of=x',
  'dd -f nope if=ran of=x',
  'dd -U if=a of=x9 bs=64k',
  'dd if=ran if=a of=x10 bs=64k',
  'dd --image-opts if=driver=qcow2,file.filename=a of=x11 bs=4k count=0',
  'dd if=ran of=x12 bs=1M count=99',
  'dd -O qcow2 if=ran of=x13 bs=1000 count=3',
  'dd -O raw if=ran of=x14 bs=1000 count=3',
  'dd -Z',
  'dd -O null-co if=ran of=x',
  'dd if=ran of=x bs=1k=2',
  'dd if= of=x',
  'dd -n if=ran of=x',
  'dd of=a if=a',
];

const BENCH_LINES = [
  'bench',
  'bench a b',
  'bench -c 10 a',
  'bench -c 10 -d 2 -s 8k a',
  'bench -c 10 -w a',
  'bench -c 10 -w --pattern=5 -f raw r',
  'bench -c 10 -w --pattern=300 a',
  'bench -c 10 --pattern=x a',
  'bench -c 0 a',
  'bench -c x a',
  'bench -d -1 a',
  'bench -s 0 -c 10 a',
  'bench -s x a',
  'bench -s 3G a',
  'bench -S 0 -c 3 a',
  'bench -S 1M -c 100 a',
  'bench -S x a',
  'bench -o 1M -c 5 a',
  'bench -o x a',
  'bench --flush-interval=2 -c 10 a',
  'bench -w --flush-interval=2 -c 10 a',
  'bench -w --flush-interval=5 -d 4 -c 10 a',
  'bench -w --flush-interval=5 -d 4 -c 10 --no-drain a',
  'bench --no-drain -c 5 a',
  'bench -n -c 5 a',
  'bench -n -t none -f raw -c 5 r',
  'bench -i foo -c 5 a',
  'bench -i io_uring -c 5 a',
  'bench -t foo -c 5 a',
  'bench -q -t unsafe -w -c 5 a',
  'bench -U -w -c 5 a',
  'bench --image-opts -c 5 driver=qcow2,file.filename=a',
  'bench -c 5 gone',
  'bench -S 8E -c 1 a',
  'bench -c 3000000000 a',
  'bench -c 5 -w --flush-interval=x a',
  'bench -Z a',
  'bench -c 10 -s 1000 -S 5000 -o 512 a',
  'bench -i native -c 5 --image-opts driver=qcow2,file.filename=a',
];

let twins: TwinFolders;

/** How long it took is nobody's to know. */
function timeless(outcome: Outcome): Outcome {
  return { ...outcome, out: outcome.out.replace(/in \d+\.\d{3} seconds/, 'in a while') };
}

describe.skipIf(isMissing)('beside the real qemu-img', () => {
  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([
      'qemu-img create -q -f qcow2 a 40M',
      "qemu-io -c 'write -P 1 0 1M' -c 'write -z 2M 1M' -c 'write -P 1 10M 128k' a",
      'qemu-img create -q -f raw r 5M',
      "qemu-io -f raw -c 'write -P 5 1M 2M' r",
      'qemu-img create -q -f qcow2 -b a -F qcow2 o',
      "qemu-io -c 'write -P 3 20M 1M' o",
      'qemu-img create -q -f qcow2 -o compat=0.10 v2 1M',
      'qemu-img convert -c -O qcow2 o c',
      "sh -c 'printf x > tiny'",
      'qemu-img create -q -f raw ran 5000192',
      "qemu-io -f raw -c 'write -P 5 0 3000' -c 'write -P 9 900k 3M' ran",
    ]);
    twins.split();
  });

  afterAll(() => twins.remove());

  it.each([...someOf(MEASURE_LINES, 3), ...DD_LINES])('answers the same: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(twins.shim(words)).toEqual(twins.real(words));
  });

  it('dd wrote the same files', () => {
    const [ours, theirs] = [readdirSync(twins.ours), readdirSync(twins.theirs)];
    expect(ours).toEqual(theirs);
    for (const name of ours.filter((each) => each.startsWith('x'))) {
      const [a, b] = [readFileSync(join(twins.ours, name)), readFileSync(join(twins.theirs, name))];
      expect([name, Buffer.compare(a, b)]).toEqual([name, 0]);
    }
  });

  it.each(someOf(BENCH_LINES, 2))('answers the same but for the time: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(timeless(twins.shim(words))).toEqual(timeless(twins.real(words)));
  });

  it('measures any size with any options as the real one does', () => {
    const options = fc.record({
      clusterBits: fc.integer({ min: 9, max: 21 }),
      refcountOrder: fc.integer({ min: 0, max: 6 }),
      size: fc.integer({ min: 0, max: 2 ** 41 }),
      mode: fc.constantFrom('off', 'metadata', 'falloc', 'full'),
    });
    const law = fc.property(options, ({ clusterBits, refcountOrder, size, mode }) => {
      const bits = `refcount_bits=${2 ** refcountOrder},preallocation=${mode}`;
      const list = `cluster_size=${2 ** clusterBits},${bits}`;
      const words = `qemu-img measure --output=json -O qcow2 -o ${list} --size ${size}`;
      expect(twins.shim(words)).toEqual(twins.real(words));
    });
    fc.assert(law, { numRuns: 8 });
  });
});
