// SPDX-License-Identifier: Apache-2.0
// `img snapshot`, and `-l` of convert and measure, beside the real qemu-img: what they say, what
// they exit with, and what the images hold afterwards.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const LINES = [
  'snapshot -l a',
  'snapshot -c s1 a',
  'snapshot -c s1 a',
  "snapshot -c '' a",
  'snapshot -l a',
  'snapshot a',
  'snapshot -d nope a',
  'snapshot -a nope a',
  'snapshot -l -c x a',
  'snapshot -c x -d y a',
  'snapshot -c x',
  'snapshot -c x a b',
  'snapshot -f qcow2 -l a',
  'snapshot -U -c x a',
  'snapshot -U -l a',
  'snapshot -l --image-opts driver=qcow2,file.driver=file,file.filename=a',
  'snapshot -l gone',
  'snapshot -d 2 a',
  'snapshot -d s1 a',
  'snapshot -q -l a',
  'snapshot -l r',
  'snapshot -c x r',
  'snapshot -d x r',
  'snapshot -c x narrow',
  'check narrow',
  'snapshot -c x v2',
  'snapshot -l v2',
  'resize v2 8M',
  'resize --shrink v2 2M',
  'snapshot -c s4 a',
  'resize a 8M',
  'resize --shrink a 2M',
  'convert -l s1 -O raw a o1',
  'convert -l 3 -O raw a o2',
  'convert -l snapshot.id=5 -O raw a o3',
  'convert -l nope -O raw a o3',
  'convert -l snapshot.name=s1 -O raw a o3',
  'convert -l snapshot.name=s1,snapshot.id=3 -O raw a o4',
  'convert -l snapshot.foo=s1 -O raw a o4',
  'convert -l x -f raw -O raw r o4',
  'convert -l s1 -O raw a a o4',
  'convert -l snapshot.name=s1 -O raw a a o5',
  'measure -l s1 -O qcow2 a',
  'measure -l nope -O qcow2 a',
  'measure -l x -O qcow2 --size 1M',
  'snapshot -a s4 a',
  'convert -O raw a o6',
  'snapshot -a 2 a',
  'check -q a',
  `snapshot -c ${'x'.repeat(300)} a`,
  'snapshot -l a',
  'snapshot -d s4 a',
  'check -q a',
  'snapshot -c x over',
  'commit over',
  'check -q over',
  'convert -l x -O raw over o7',
  'resize --shrink over 512k',
  'resize over 16M',
  'check -q over',
  'snapshot -a x over',
  'snapshot -d x over',
  'check -q over',
  'convert -O raw over o8',
];

describe.skipIf(isMissing)('snapshots of an image beside the real qemu-img', () => {
  const twins = new TwinFolders();
  afterAll(() => twins.remove());
  beforeAll(() => {
    twins.make([
      'qemu-img create -q -f qcow2 a 4M',
      "qemu-io -c 'write -P 1 0 1M' a",
      'qemu-img create -q -f raw r 1M',
      'qemu-img create -q -f qcow2 -o refcount_bits=1 narrow 4M',
      "qemu-io -c 'write -P 1 0 1M' narrow",
      'qemu-img create -q -f qcow2 -o compat=0.10 v2 4M',
      'qemu-img create -q -f qcow2 under 8M',
      'qemu-img create -q -f qcow2 -b under -F qcow2 over',
      "qemu-io -c 'write -P 3 0 1M' over",
    ]);
    twins.split();
  }, 60_000);

  it('says the same and leaves the same', () => {
    const plain = (text: string): string =>
      text.replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'DATE').replace(/leaked.*\n|Leaked.*\n/g, '');
    for (const line of LINES) {
      const real = twins.real(`qemu-img ${line}`);
      const own = twins.shim(`qemu-img ${line}`);
      // A failed snapshot leaks a cluster there, not here.
      if (line === 'check narrow') {
        expect([real.status, own.status]).toEqual([3, 0]);
        continue;
      }
      const told = { status: own.status, out: plain(own.out), err: plain(own.err) };
      expect(told, line).toEqual({
        status: real.status, out: plain(real.out), err: plain(real.err),
      });
    }
    const sum = (path: string): string =>
      createHash('sha256').update(readFileSync(path)).digest('hex');
    for (const name of ['o1', 'o2', 'o3', 'o5', 'o6', 'o7', 'o8']) {
      expect(sum(join(twins.ours, name)), name).toBe(sum(join(twins.theirs, name)));
    }
    const both = `compare ${join(twins.theirs, 'a')} ${join(twins.ours, 'a')}`;
    expect(twins.real(`qemu-img ${both}`).status).toBe(0);
    expect(twins.real('qemu-img check -q a', twins.ours).status).toBe(0);
  }, 240_000);

  it('lists them as JSON, too', () => {
    const { out } = twins.shim('qemu-img snapshot -l --output=json a');
    const names = (JSON.parse(out) as { name: string }[]).map(({ name }) => name);
    expect(names).toEqual(['s1', '', 'x'.repeat(255)]);
  });
});
