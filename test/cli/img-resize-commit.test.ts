// SPDX-License-Identifier: Apache-2.0
// `img resize` and `img commit` beside the real qemu-img: what they say, and what they leave.
import { statSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const RESIZE_LINES = [
  'resize',
  'resize a',
  'resize a +x',
  'resize a 8M extra',
  'resize a 8M',
  'resize a +1M',
  'resize a -1M',
  'resize -q a -1M',
  'resize --shrink a -1M',
  'resize -q --shrink a 1M',
  'resize --preallocation=foo a 2M',
  'resize --preallocation=falloc --shrink a 1k',
  'resize --preallocation=full a 3M',
  'resize r 2M',
  'resize -f raw r 2M',
  'resize -f raw --preallocation=metadata r 3M',
  'resize -f raw --preallocation=falloc r 3M',
  'resize -f raw r 0',
  'resize a -100M',
  'resize gone 1M',
  'resize a 16E',
  'resize a 1.5x',
  'resize --image-opts driver=qcow2,file.filename=a 4M',
  'resize --image-opts -f qcow2 driver=qcow2,file.filename=a 4M',
  'resize -f raw r 1001',
  'resize -f raw r +1',
  'resize -f raw --shrink r 1001',
  'resize a +1',
  'resize a 5000001',
  "resize a ''",
  'resize a +',
  'resize a ++1',
  'resize a -h',
  'resize -Z a 1M',
  'resize --shrink --preallocation=full a +1M',
  'resize o 2M',
  'resize --shrink o 2M',
  'resize o 8M',
  'resize --preallocation=metadata o 9M',
  'resize tiny 1G',
  'resize tiny 3G',
  'resize wide 100T',
];

const COMMIT_LINES = [
  'commit',
  'commit a b',
  'commit gone',
  'commit b1',
  'commit -f raw r',
  'commit -b nope t1',
  'commit -b t1 t1',
  'commit t1',
  'commit -d -q t2',
  'commit -b b3 t3',
  'commit -b b4 -q -d t4',
  'commit -r 100M t5',
  'commit -r x t6',
  'commit -t foo t6',
  'commit -f raw t1',
  'commit --image-opts driver=qcow2,file.filename=t6',
  'commit -b sub/b sub/t',
  'commit -b b sub/t',
  'commit -Z t1',
  'commit rt',
  'commit longer',
  'commit v2',
  'commit full',
];

const FULL = {
  driver: 'raw',
  file: {
    driver: 'blkdebug',
    'inject-error': [{ event: 'pwritev', errno: 28 }],
    image: { driver: 'file', filename: 'base.raw' },
  },
};

let twins: TwinFolders;

function chain(number: number): string[] {
  const [b, m, t] = [`b${number}`, `m${number}`, `t${number}`];
  return [
    `qemu-img create -q -f qcow2 ${b} 4M`,
    `qemu-io -c 'write -P 1 0 1M' ${b}`,
    `qemu-img create -q -f qcow2 -b ${b} -F qcow2 ${m} 6M`,
    `qemu-io -c 'write -P 2 512k 1M' ${m}`,
    `qemu-img create -q -f qcow2 -b ${m} -F qcow2 ${t} 7M`,
    `qemu-io -c 'write -P 3 1M 3M' -c 'write -z 5M 64k' ${t}`,
  ];
}

describe.skipIf(isMissing)('beside the real qemu-img', () => {
  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([
      'qemu-img create -q -f qcow2 a 4M',
      'qemu-img create -q -f raw r 1M',
      'qemu-img create -q -f qcow2 -b a -F qcow2 o',
      ...[1, 2, 3, 4, 5, 6].flatMap(chain),
      'mkdir sub',
      'qemu-img create -q -f qcow2 sub/b 2M',
      'qemu-img create -q -f qcow2 base6 6M',
      ...['off', 'metadata', 'falloc'].map(
        (mode) => `qemu-img create -q -f qcow2 -b base6 -F qcow2 below.${mode} 1M`,
      ),
      'qemu-img create -q -f qcow2 -b b -F qcow2 sub/t',
      "qemu-io -c 'write -P 3 0 1M' sub/t",
      'qemu-img create -q -f raw base.raw 1M',
      `qemu-img create -q -f qcow2 -b 'json:${JSON.stringify(FULL)}' -F raw full`,
      "qemu-io -c 'write 0 64k' full",
      'qemu-img create -q -f qcow2 -o cluster_size=512 tiny 64M',
      'qemu-img create -q -f qcow2 -o cluster_size=4096 wide 1T',
      'qemu-img create -q -f qcow2 -b base.raw -F raw rt 3M',
      "qemu-io -c 'write -P 9 100k 2M' rt",
      'qemu-img create -q -f raw long.raw 2M',
      'qemu-img create -q -f qcow2 -b long.raw -F raw longer 1M',
      "qemu-io -c 'write -P 9 100k 200k' longer",
      'qemu-img create -q -f qcow2 -o compat=0.10 -b m6 -F qcow2 v2',
      "qemu-io -c 'write -P 9 100k 200k' -c 'write 5M 64k' v2",
    ]);
    twins.split();
  });

  afterAll(() => twins.remove());

  it.each([...RESIZE_LINES, ...COMMIT_LINES])('answers the same: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(twins.shim(words)).toEqual(twins.real(words));
  });

  const images = ['a', 'o', 't1', 'm1', 't2', 'm2', 'b3', 't3', 't4', 'b4', 't5', 't6', 'm6'];
  const others = ['tiny', 'v2', 'sub/t', 'sub/b', 'rt', 'longer'];
  it.each([...images, ...others])('leaves %s alike', (name) => {
    const describe_ = (cwd: string): unknown => {
      const { out } = twins.real(`qemu-img info --output=json ${name}`, cwd);
      const { 'actual-size': _actual, ...facts } = JSON.parse(out) as Record<string, unknown>;
      return facts;
    };
    expect(describe_(twins.ours)).toEqual(describe_(twins.theirs));
    expect(twins.real(`qemu-img check ${name}`, twins.ours).status).toBe(0);
    const [a, b] = [join(twins.ours, name), join(twins.theirs, name)];
    expect(twins.real(`qemu-img compare ${a} ${b}`)).toMatchObject({ status: 0 });
  });

  const emptied = ['t1', 't5', 't6', 'rt', 'longer', 'sub/t'];
  it.each(emptied)('%s is as small as an empty image', (name) => {
    const size = (folder: string): number => statSync(join(folder, name)).size;
    expect(size(twins.ours)).toBe(size(twins.theirs));
  });

  it.each(['off', 'metadata', 'falloc'])('grown over a longer file, %s, maps alike', (mode) => {
    const maps = [twins.ours, twins.theirs].map((folder) => {
      const run = (line: string) =>
        folder === twins.ours ? twins.shim(line) : twins.real(line, folder);
      const grown = `resize --preallocation=${mode} below.${mode} 9M`;
      expect(run(`qemu-img ${grown}`).status).toBe(0);
      const { out } = run(`qemu-img map --output=json below.${mode}`);
      return out.replaceAll(/, "offset": \d+/g, '');
    });
    expect(maps[0]).toBe(maps[1]);
  });

  it('commit tells in JSON what it did, with progress in lines', () => {
    twins.make(chain(7));
    const made = twins.theirs;
    const { out, status } = twins.shim('qemu-img commit --progress json --output=json t7', made);
    const end = out.indexOf('{\n');
    const lines = out.slice(0, end).trim().split('\n');
    expect(status).toBe(0);
    expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ percent: 100 });
    expect(JSON.parse(out.slice(end))).toEqual({ image: 't7', base: 'm7', emptied: true });
  });

  it('compare tells in JSON where the images differ', () => {
    const { out, status } = twins.shim('qemu-img compare --output=json b3 a');
    const answer = JSON.parse(out) as Record<string, unknown>;
    expect(status).toBe(1);
    expect(answer).toMatchObject({ identical: false, offset: 0 });
    const same = twins.shim('qemu-img compare --output=json b3 b3');
    expect(JSON.parse(same.out)).toMatchObject({ identical: true });
  });
});
