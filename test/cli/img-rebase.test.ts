// SPDX-License-Identifier: Apache-2.0
// `img rebase` beside the real qemu-img: what it says, and what it leaves.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { peer } from '../helpers/peers.js';
import { TwinFolders } from '../helpers/twin-folders.js';

const isMissing = peer('qemu-img') === null || peer('qemu-io') === null;

const LINES = [
  'rebase',
  'rebase o1',
  'rebase -u o1',
  'rebase -b n',
  'rebase -b n2 o2 x',
  'rebase -b gone o2',
  'rebase -b gone -F qcow2 o2',
  'rebase -b n2 -F nope o2',
  'rebase -u -b gone -F nope o2',
  'rebase -f raw -b n2 -F qcow2 r.raw2',
  'rebase -b n2 -F qcow2 gone',
  'rebase -b n2 -F qcow2 o2',
  'rebase -b n3 o3',
  'rebase -q -p -b b4 -F qcow2 o4',
  "rebase -b '' o5",
  "rebase -u -b '' o6",
  'rebase -u -b gone -F qcow2 o7',
  'rebase -b b7 -F qcow2 o7',
  'rebase -u -b gone o6',
  'rebase -b b8 -F qcow2 t8',
  'rebase -b r.raw9 -F raw o9',
  'rebase -b o10 -F qcow2 o10',
  'rebase -b t10 -F qcow2 o10',
  'rebase -t foo -b n10 -F qcow2 o10',
  'rebase -T foo -b n10 -F qcow2 o10',
  'rebase --image-opts -f qcow2 -b n10 -F qcow2 driver=qcow2,file.filename=o10',
  'rebase -f raw -b n10 -F qcow2 o10',
  'rebase -U -t none -T none -b n10 -F qcow2 o10',
  "rebase -u -F raw -b '' o10",
  "rebase -b n10 -F '' o10",
  'rebase -F qcow2 o10',
  'rebase -u -F qcow2 o10',
  'rebase -b b10 -F qcow2 b10',
  "rebase -b '' b10",
];

let twins: TwinFolders;

function family(number: number): string[] {
  const named = (letter: string): string => `${letter}${number}`;
  const [b, n, o, t] = [named('b'), named('n'), named('o'), named('t')];
  return [
    `qemu-img create -q -f qcow2 ${b} 4M`,
    `qemu-io -c 'write -P 1 0 1M' ${b}`,
    `qemu-img create -q -f qcow2 ${n} 3M`,
    `qemu-io -c 'write -P 1 0 256k' -c 'write -P 2 512k 1M' ${n}`,
    `qemu-img create -q -f qcow2 -b ${b} -F qcow2 ${o} 6M`,
    `qemu-io -c 'write -P 3 800k 64k' ${o}`,
    `qemu-img create -q -f qcow2 -b ${o} -F qcow2 ${t}`,
    `qemu-img create -q -f raw r.raw${number} 5M`,
  ];
}

describe.skipIf(isMissing)('rebase beside the real qemu-img', () => {
  beforeAll(() => {
    twins = new TwinFolders();
    twins.make([1, 2, 3, 4, 5, 6, 7, 8, 9, 10].flatMap(family));
    twins.split();
  });

  afterAll(() => twins.remove());

  it.each(LINES)('answers the same: %s', (line) => {
    const words = `qemu-img ${line}`;
    expect(twins.shim(words)).toEqual(twins.real(words));
  });

  it.each(['o1', 'o2', 'o4', 'o5', 'o6', 'o7', 't8', 'o9', 'o10'])('leaves %s alike', (name) => {
    const facts = (cwd: string): unknown => {
      const { out } = twins.real(`qemu-img info --output=json ${name}`, cwd);
      const { 'actual-size': _actual, ...rest } = JSON.parse(out) as Record<string, unknown>;
      return rest;
    };
    expect(facts(twins.ours)).toEqual(facts(twins.theirs));
    if (name === 'o7') return;
    expect(twins.real(`qemu-img check ${name}`, twins.ours).status).toBe(0);
    const [a, b] = [`${twins.ours}/${name}`, `${twins.theirs}/${name}`];
    expect(twins.real(`qemu-img compare ${a} ${b}`)).toMatchObject({ status: 0 });
  });
});
