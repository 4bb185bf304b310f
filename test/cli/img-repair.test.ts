// SPDX-License-Identifier: Apache-2.0
// `img check -r` beside the real qemu-img: findings, repairs and what is left.
import { closeSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { baseImages, broken, BROKEN_KINDS } from '../helpers/broken-images.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const LINES = [
  'check -r all a',
  'check -r leaks a',
  'check -r foo a',
  'check -r leaks --output=json l',
  'check l',
  'check -r all l2',
  'check -r all l3',
  'check -r all -q l2',
  'check -r leaks e',
  'check e',
  'check -r all e2',
  'check -r all e',
  'check e2',
  'check -r all --output=json e3',
  'check -r leaks c',
  'check -r all c',
  'check -r all cb',
  'check c',
  'check -r all L1',
  'check rb',
  'check -r all rb',
  'check -r all rb2',
  'check -r all --output=json b',
  'check -r all b2',
  'check -r all r2',
  'check -r all r3',
  'check -r leaks r2',
  'check -r all d',
  'check -U -r all d',
  'check -r all w1',
  'check w1',
];

const KINDS = BROKEN_KINDS.filter(({ like }) => like).flatMap(({ name }) => [
  `check -r all ${name}`,
  `check -r leaks ${name}-2`,
]);

const REFCOUNTS = 0x20000;
const L2 = 0x40000;

let twins: TwinFolders;

function damage(name: string, ...places: readonly (readonly [number, ...number[]])[]): void {
  const file = openSync(join(twins.theirs, name), 'r+');
  for (const [offset, ...bytes] of places) writeSync(file, new Uint8Array(bytes), 0, null, offset);
  closeSync(file);
}

describe.skipIf(isMissing)('repairs beside the real qemu-img', () => {
  beforeAll(async () => {
    twins = new TwinFolders();
    const sound = await baseImages();
    for (const kind of BROKEN_KINDS) {
      const bytes = broken(sound[kind.base], kind);
      for (const tail of ['', '-2']) writeFileSync(join(twins.theirs, kind.name + tail), bytes);
    }
    const names = ['a', 'l', 'l2', 'l3', 'e', 'e2', 'e3', 'c', 'cb', 'L1', 'rb', 'rb2', 'b', 'b2'];
    for (const name of [...names, 'd', 'r2', 'r3', 'un', 'cut', 'cut2']) {
      twins.make([
        `qemu-img create -q -f qcow2 ${name} 4M`,
        `qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 2M 64k' ${name}`,
      ]);
    }
    twins.make([
      'qemu-img create -q -f qcow2 -o refcount_bits=1,cluster_size=4k w1 4M',
      "qemu-io -c 'write -P 1 0 1M' w1",
    ]);
    for (const name of ['l', 'l2', 'l3']) {
      damage(name, [REFCOUNTS + 50, 0, 1, 0, 3]);
      truncateSync(join(twins.theirs, name), 2 ** 21);
    }
    for (const name of ['e', 'e2', 'e3']) {
      damage(name, [REFCOUNTS + 12, 0, 0], [REFCOUNTS + 16, 0, 2]);
    }
    for (const name of ['c', 'cb', 'b', 'b2']) damage(name, [L2, 0]);
    for (const name of ['b', 'b2']) damage(name, [L2 + 8, 0, 0, 0x7f, 0xff, 0xff, 5, 0, 0]);
    damage('L1', [0x30000, 0]);
    for (const name of ['rb', 'rb2']) damage(name, [0x10006, 0]);
    damage('un', [0x10006, 2]);
    damage('d', [79, 3]);
    damage('leak-2', [79, 1]);
    for (const name of ['r2', 'r3']) {
      damage(name, [REFCOUNTS + 16, 0, 2], [L2 + 32, 0, 0, 0, 0, 0, 9, 0, 0]);
    }
    for (const name of ['cut', 'cut2']) truncateSync(join(twins.theirs, name), 0x100000);
    damage('cut', [0x10006, 0]);
    damage('w1', [0x2001, 0]);
    twins.split();
  });

  afterAll(() => twins.remove());

  it.each(LINES)('answers the same: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(twins.shim(words)).toEqual(twins.real(words));
  });

  it.each([...someOf(KINDS, 3), 'resize -q leak-2 8M'])('does the same: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(twins.shim(words)).toEqual(twins.real(words));
    const name = line.split(' ').findLast((word) => /^[a-z]/.test(word)) ?? '';
    const [a, b] = [join(twins.ours, name), join(twins.theirs, name)];
    const left = (path: string) => twins.real(`qemu-img check ${path}`);
    expect(left(a)).toEqual(left(b));
    expect(twins.real(`qemu-img compare ${a} ${b}`).status).not.toBe(1);
  });

  it.each(['l', 'l2', 'e', 'e2', 'e3', 'c', 'L1', 'rb', 'd', 'w1'])('%s is clean', (name) => {
    expect(twins.real(`qemu-img check -q ${name}`, twins.ours).status).toBe(0);
    const [a, b] = [join(twins.ours, name), join(twins.theirs, name)];
    expect(twins.real(`qemu-img compare ${a} ${b}`)).toMatchObject({ status: 0 });
  });

  it('makes refcounts anew where the real one gives up: a block that is not aligned', () => {
    expect(twins.shim('qemu-img check -r all un').status).toBe(0);
    expect(twins.real('qemu-img check -q un', twins.ours).status).toBe(0);
  });

  it.each([
    ['check -r all cut', 2],
    ['amend -o refcount_bits=32 cut2', 0],
  ])('new refcounts never lie where lost data is named: %s', (line, status) => {
    expect(twins.shim(`qemu-img ${line}`).status).toBe(status);
    const again = twins.real(`qemu-img check ${line.split(' ').at(-1)}`, twins.ours);
    expect(again.status).toBe(status);
    expect(again.out).not.toContain('reference=2');
  });

  it('a header that says corrupt or dirty does not say so when all is mended', () => {
    const { out } = twins.real('qemu-img info --output=json d', twins.ours);
    expect(out).toContain('"corrupt": false');
    expect(out).toContain('"dirty-flag": false');
  });
});
