// SPDX-License-Identifier: Apache-2.0
// `img bitmap`, `convert --bitmaps` and `measure` beside the real qemu-img: what they say, what
// each leaves, and the same lines on what the other has left.
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { breakFirstBitmap } from '../helpers/bitmap-places.js';
import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const LINES = [
  'bitmap',
  'bitmap --clear',
  'bitmap --clear a',
  'bitmap --clear a b0 c',
  'bitmap a b0',
  'bitmap --add a b0',
  "bitmap --add a ''",
  'bitmap --add -g 1000 a q',
  'bitmap --add -g 256 a q',
  'bitmap --add -g 4G a q',
  'bitmap --add -g 0 a zero',
  'bitmap --add -g x a y',
  'bitmap --add -g 99999999999999999999 a y',
  'bitmap --enable --disable a b0',
  'bitmap --disable --enable a b0',
  'bitmap --add --disable -g 1M a e1',
  'bitmap --add --merge b0 --disable a e2',
  'bitmap --merge nope a b0',
  'bitmap --merge b0 --merge b1 a e1',
  'bitmap --merge b1 -b s a b0',
  'bitmap --merge b1 -b s -F qcow2 a b0',
  'bitmap --merge b1 -b gone a b0',
  'bitmap --merge b0 -b broken a b1',
  'bitmap --merge b0 -b o a b1',
  'bitmap --add --merge b0 -b a o over2',
  'bitmap --remove --clear a e1',
  'bitmap --remove --add -g 2M a e2',
  'bitmap --remove a e2',
  'bitmap --remove a e2',
  'bitmap -b s --clear a b0',
  'bitmap -F qcow2 --clear a b0',
  'bitmap -g 64k --clear a b0',
  'bitmap --add --add a twice',
  'bitmap --clear -f raw a b0',
  'bitmap --clear --image-opts -f qcow2 a b0',
  'bitmap --clear --image-opts driver=qcow2,file.filename=a b1',
  'bitmap --add --image-opts a b9',
  'bitmap --clear gone b0',
  'bitmap --bogus a b0',
  'bitmap -U --clear a b0',
  'bitmap --clear broken b0',
  'bitmap --enable broken b0',
  'bitmap --remove broken b0',
  'bitmap --add o over',
  'bitmap --add --disable small s1',
  'bitmap --add small s2',
  'bitmap --remove small s1',
  `bitmap --add small ${'n'.repeat(1023)}`,
  'convert --bitmaps -O qcow2 s c1',
  'convert --skip-broken-bitmaps -O qcow2 s c2',
  'convert --bitmaps -O raw s c3',
  'convert --bitmaps -O qcow2 broken2 c4',
  'convert --bitmaps --skip-broken-bitmaps -O qcow2 broken2 c4',
  'convert --bitmaps -O qcow2 s s c5',
  'convert --bitmaps -f raw -O qcow2 s c5',
  'convert --bitmaps -O qcow2 -o compat=0.10 s c6',
  'convert --bitmaps -O qcow2 v2 c7',
  'convert --bitmaps -n -O qcow2 s c1',
  'convert --bitmaps -O qcow2 -o cluster_size=4k,refcount_bits=1 s c8',
  'measure -O qcow2 s',
  'measure -O qcow2 -o cluster_size=4k s',
  'measure -O qcow2 broken2',
  'measure -O raw s',
  'measure -O qcow2 -o compat=0.10 s',
  'measure -O qcow2 --output=json o',
  'snapshot -c one s',
  'snapshot -a one s',
  'snapshot -a none s',
  'snapshot -d one s',
  'resize s +1M',
  'resize --shrink s 3M',
  'resize broken2 +1M',
  'info broken2',
];

let twins: TwinFolders;

describe.skipIf(isMissing)('beside the real qemu-img', () => {
  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([
      'qemu-img create -q -f qcow2 a 10M',
      'qemu-img bitmap --add a b0',
      'qemu-img bitmap --add --disable -g 128k a b1',
      "qemu-io -c 'write 1M 3M' a",
      'cp a s',
      'cp s broken',
      'cp s broken2',
      'qemu-img create -q -f qcow2 -b a -F qcow2 o',
      'qemu-img create -q -f qcow2 -o cluster_size=512 small 1M',
      'qemu-img create -q -f qcow2 -o compat=0.10 v2 1M',
    ]);
    for (const name of ['broken', 'broken2']) breakFirstBitmap(join(twins.theirs, name));
    twins.split();
  });

  afterAll(() => twins.remove());

  it.each(LINES)('answers the same: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(twins.shim(words)).toEqual(twins.real(words));
  });

  it.each(['a', 'o', 'broken', 'small', 'c1', 'c4', 'c8', 's'])('leaves %s alike', (name) => {
    const facts = (cwd: string): unknown => {
      const { out } = twins.real(`qemu-img info --output=json ${name}`, cwd);
      const { 'actual-size': _actual, ...rest } = JSON.parse(out) as Record<string, unknown>;
      return rest;
    };
    expect(facts(twins.ours)).toEqual(facts(twins.theirs));
    const checked = twins.real(`qemu-img check ${name}`, twins.ours);
    expect([checked.status, checked.out]).toEqual([0, expect.stringContaining('No errors')]);
    const paths = [join(twins.ours, name), join(twins.theirs, name)];
    expect(twins.real(`qemu-img compare ${paths.join(' ')}`)).toMatchObject({ status: 0 });
  });

  it('goes on with what the other side has left', () => {
    for (const line of ['bitmap --add a last', 'bitmap --merge b0 a last', 'check a']) {
      const ours = twins.shim(`qemu-img ${line}`, twins.theirs);
      const theirs = twins.real(`qemu-img ${line}`, twins.ours);
      const result = (each: typeof ours): unknown => [each.status, each.err];
      expect(result(ours), line).toEqual(result(theirs));
      expect(ours.status, line).toBe(0);
    }
  });
});
