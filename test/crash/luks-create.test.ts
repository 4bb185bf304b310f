// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write of making an encrypted image, alone, with its header apart, or
// in qcow2, over nothing or over what was there before. What is left is as it was, or refused with
// one line, or opens with the new secret and is whole; and whole for good once it was made.
import { describe, expect, it } from 'vitest';

import { BlockError, SeededRandom } from '../../src/base/index.js';
import type { JsonObject } from '../../src/base/index.js';
import { createGraph, createRegistry } from '../../src/block/index.js';
import type { Graph, Node, NodeOptions } from '../../src/block/index.js';
import { runImg } from '../../src/cli/img/index.js';
import { parseAnyLuksHeader } from '../../src/crypto/luks/index.js';
import { isLuks2 } from '../../src/crypto/luks2/index.js';
import { DRIVER_LOADERS } from '../../src/engine/catalog.js';
import { createEngine } from '../../src/engine/index.js';
import { CrashDisk, MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import { readAll } from '../helpers/job-stage.js';
import { withoutPrototype } from '../helpers/keyslot-stage.js';
import { inQcow2, makeLuks, slotPasswords } from '../helpers/luks-images.js';
import { luks2Bytes, luks2Text } from '../helpers/luks2-header.js';
import { forEachSeed, runs, someOf } from '../helpers/seeds.js';

const SIZE = 256 * 1024;
const CUTS_PER_WRITE = runs(3, 60);
const NOISE = 0xa5;
const NEW = ['new', ...Array<string>(7).fill('erased')];
const drivers = createRegistry({ drivers: DRIVER_LOADERS });

type Members = Readonly<Record<string, unknown>>;
type Files = Readonly<Record<string, Uint8Array>>;

interface Making {
  readonly name: string;
  /** What is there before. */
  readonly files?: () => Promise<Files>;
  /** Words of img, or options of blockdev-create over nodes `a` and `b`. */
  readonly by: string | Members;
  /** Options for opening it, but for the secret. */
  readonly opened: 'luks' | 'apart' | 'qcow2';
  /** Of the file that gets the LUKS header. */
  readonly header?: '/b';
}

const QUICK = 'cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64,iter-time=0,key-secret=new';
const INSIDE = `encrypt.format=luks,${QUICK.replaceAll(/(^|,)/g, '$1encrypt.')}`;
const MEMBERS = {
  'cipher-alg': 'aes-128',
  'cipher-mode': 'cbc',
  'iter-time': 0,
  'key-secret': 'new',
};

/** Makes the header longer than a sector. */
const BASE = `/${'base'.repeat(120)}`;

async function oldLuks(): Promise<Files> {
  return { '/a': (await makeLuks(['one', 'two'])).bytes };
}

async function oldQcow2(): Promise<Files> {
  return { '/a': inQcow2((await makeLuks(['one'])).bytes) };
}

/** Key material of the new header comes over the old one's second copy or in front of it. */
function oldVersion2(headerBytes: number): () => Promise<Files> {
  return () => {
    const copy = { text: JSON.stringify(luks2Text()), headerBytes };
    return Promise.resolve({ '/a': luks2Bytes(copy) });
  };
}

const MAKINGS: readonly Making[] = [
  { name: 'a LUKS file', by: `create -q -f luks -o ${QUICK} /a ${SIZE}`, opened: 'luks' },
  {
    name: 'a LUKS file in place of another',
    files: oldLuks,
    by: `create -q -f luks -o ${QUICK} /a ${SIZE}`,
    opened: 'luks',
  },
  {
    name: 'LUKS on a node that holds LUKS',
    files: oldLuks,
    by: { driver: 'luks', file: 'a', size: SIZE, ...MEMBERS },
    opened: 'luks',
  },
  {
    name: 'LUKS on a node that holds LUKS version 2',
    files: oldVersion2(16 * 1024),
    by: { driver: 'luks', file: 'a', size: SIZE, ...MEMBERS },
    opened: 'luks',
  },
  {
    name: 'LUKS on a node that holds LUKS version 2 with long texts',
    files: oldVersion2(1024 * 1024),
    by: { driver: 'luks', file: 'a', size: SIZE, ...MEMBERS },
    opened: 'luks',
  },
  {
    name: 'a header apart',
    by: `create -q -f luks -o detached-header=on,${QUICK} /b ${SIZE}`,
    files: () => Promise.resolve({ '/a': new Uint8Array(SIZE).fill(NOISE) }),
    opened: 'apart',
    header: '/b',
  },
  {
    name: 'a header apart and its payload',
    by: { driver: 'luks', file: 'a', header: 'b', size: SIZE, ...MEMBERS },
    files: async () => ({ '/a': new Uint8Array(512), '/b': (await makeLuks(['one'])).bytes }),
    opened: 'apart',
    header: '/b',
  },
  {
    name: 'an encrypted qcow2 file',
    by: `create -q -f qcow2 -o ${INSIDE} /a ${SIZE}`,
    opened: 'qcow2',
  },
  {
    name: 'an encrypted qcow2 file over a backing file with a long name',
    files: () => Promise.resolve({ [BASE]: new Uint8Array(SIZE).fill(NOISE) }),
    by: `create -q -f qcow2 -o cluster_size=4k,${INSIDE} -b ${BASE} -F raw /a ${SIZE}`,
    opened: 'qcow2',
  },
  {
    name: 'an encrypted qcow2 file in place of another, preallocated',
    files: oldQcow2,
    by: `create -q -f qcow2 -o cluster_size=4k,preallocation=metadata,${INSIDE} /a ${SIZE}`,
    opened: 'qcow2',
  },
  {
    name: 'encrypted qcow2 on a node that holds some',
    files: oldQcow2,
    by: { driver: 'qcow2', file: 'a', size: SIZE, encrypt: { format: 'luks', ...MEMBERS } },
    opened: 'qcow2',
  },
];

interface Made {
  readonly error: string | null;
  /** What is on disk when it is said to be done. */
  readonly durable: MemoryHost;
}

async function make(host: MemoryHost, by: Making['by']): Promise<Made> {
  return typeof by === 'string' ? makeByImg(host, by) : makeByJob(host, by);
}

async function makeByImg(host: MemoryHost, line: string): Promise<Made> {
  const [verb = '', ...rest] = line.split(' ');
  const said: string[] = [];
  const say = (text: string): void => void said.push(text);
  const words = [verb, '--object', 'secret,id=new,data=new', ...rest];
  const program = { name: 'img', out: say, err: say, terminal: false, host };
  const status = await runImg(words, program);
  const text = said.join('');
  expect(status).toBe(text === '' ? 0 : 1);
  return { error: text === '' ? null : text, durable: durableOf(host) };
}

async function makeByJob(host: MemoryHost, options: Members): Promise<Made> {
  const engine = await createEngine({ host, lanes: 0 });
  const run = (command: string, args: Members): Promise<unknown> =>
    runCommand(engine, { command, args: withoutPrototype(args) as JsonObject, outOfBand: false });
  try {
    await run('object-add', { 'qom-type': 'secret', id: 'new', data: 'new' });
    for (const name of ['a', 'b'].filter((each) => host.paths().includes(`/${each}`))) {
      await run('blockdev-add', { driver: 'file', 'node-name': name, filename: `/${name}` });
    }
    await run('blockdev-create', { 'job-id': 'j', options });
    const job = engine.jobs.require('j');
    await job.ended;
    const made = { error: job.info().error ?? null, durable: durableOf(host) };
    await job.dismiss();
    return made;
  } finally {
    await engine.close().catch(() => undefined);
  }
}

function durableOf(host: MemoryHost): MemoryHost {
  return host instanceof CrashDisk ? host.durable() : host;
}

/** `old`, `new` or why it cannot be opened; a mistake is thrown. */
async function found(host: MemoryHost, making: Making, before: Files): Promise<string> {
  const { opened, header = '/a' } = making;
  const bytes = host.paths().includes(header) ? host.fileContents(header) : new Uint8Array(0);
  const old = before[header];
  if (old !== undefined && isOld(bytes, old)) return 'old';
  const graph = graphOn(host);
  try {
    const node = await graph.open(optionsOf(opened));
    await requireWhole(node, making);
    const at = opened === 'qcow2' ? cryptOffset(bytes) : 0;
    const area = bytes.slice(at);
    expect(await slotPasswords(area, parseAnyLuksHeader(area), ['new'])).toEqual(NEW);
    return 'new';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    expect(error.message).toMatch(/^[^\n]+$/);
    return error.message;
  } finally {
    await graph.closeAll();
  }
}

async function requireWhole(node: Node, { opened, name }: Making): Promise<void> {
  expect(node.length).toBe(SIZE);
  if (opened !== 'qcow2') return;
  const { corruptions, checkErrors, messages, leaks } = await node.check('none');
  expect([corruptions, checkErrors, leaks], messages.join('; ')).toEqual([0, 0, 0]);
  const shown = name.includes('backing') ? NOISE : 0;
  expect((await readAll(node)).every((byte) => byte === shown)).toBe(true);
}

function optionsOf(opened: Making['opened']): NodeOptions {
  const file = { driver: 'file', filename: '/a' };
  const key = { 'key-secret': 'new' };
  if (opened === 'qcow2') {
    return { driver: 'qcow2', file, encrypt: { format: 'luks', ...key } } as unknown as NodeOptions;
  }
  const apart = opened === 'apart' ? { header: { driver: 'file', filename: '/b' } } : {};
  return { driver: 'luks', file, ...apart, ...key } as unknown as NodeOptions;
}

function graphOn(host: MemoryHost): Graph {
  const secret = (id: string): Uint8Array => Buffer.from(id);
  return createGraph({ host, registry: drivers, clock: host.clock, random: host.random, secret });
}

/** Where the extension for encryption says that its header begins. */
function cryptOffset(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = view.getUint32(100); ; at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8) {
    if (view.getUint32(at) === 0x0537be77) return Number(view.getBigUint64(at + 8));
  }
}

/** Of LUKS version 2 either sector will do by which it is found, if all others are there. */
function isOld(bytes: Uint8Array, old: Uint8Array): boolean {
  if (bytes.length !== old.length) return false;
  const second = Number(new DataView(old.buffer, old.byteOffset).getBigUint64(8));
  const starts = isLuks2(old) ? [0, second] : [0];
  const same = starts.filter((start) => {
    const [is, was] = [bytes, old].map((all) => all.slice(start, start + 512));
    return Buffer.compare(is as Uint8Array, was as Uint8Array) === 0;
  });
  const rest = bytes.slice();
  for (const start of starts) rest.set(old.subarray(start, start + 512), start);
  return same.length > 0 && Buffer.compare(rest, old) === 0;
}

/** Every choice of the changes that may be lost, where they are few. */
function subsets(disk: CrashDisk): MemoryHost[] {
  const changes = disk.unsyncedChanges().map((_, index) => index);
  const whole = changes.length > runs(3, 6) ? 0 : 2 ** changes.length - 1;
  return Array.from({ length: whole + 1 }, (_, bits) =>
    disk.afterPowerLoss(changes.filter((index) => (bits & (1 << index)) !== 0)),
  );
}

const REFUSED = {
  luks: ['Volume is not in LUKS format', 'LUKS header: the file ends at 0 bytes'],
  apart: ['Volume is not in LUKS format', 'LUKS header: the file ends at 0 bytes'],
  qcow2: ['Image is not in qcow2 format'],
};

describe('making an encrypted image, the power cut at every write', () => {
  it.each(MAKINGS)('$name', async (making) => {
    const before = (await making.files?.()) ?? {};
    await forEachSeed(runs(1, 3), async (seed) => {
      const disk = new CrashDisk({ seed });
      for (const [path, bytes] of Object.entries(before)) disk.putFile(path, bytes);
      const random = new SeededRandom(seed);
      const survivors: MemoryHost[] = [];
      disk.onWrite = () => {
        survivors.push(...subsets(disk));
        for (let cut = 0; cut < CUTS_PER_WRITE; cut += 1) {
          survivors.push(disk.afterPowerLoss(random));
        }
      };
      const { error, durable } = await make(disk, making.by);
      disk.onWrite = null;
      expect(error).toBeNull();
      expect(await found(durable, making, before), 'durable').toBe('new');
      const seen = new Set<string>();
      for (const host of survivors) seen.add(await found(host, making, before));
      const expected = ['old', 'new', ...REFUSED[making.opened]];
      for (const each of seen) expect(expected).toContain(each);
    });
  });
});

describe('making an encrypted image', () => {
  it.each(someOf(MAKINGS, 5))('leaves none where something fails: $name', async (making) => {
    const before = (await making.files?.()) ?? {};
    const refused = [...REFUSED[making.opened], expect.stringContaining('No such file')];
    for (const operation of ['write', 'write-zeroes', 'sync', 'truncate'] as const) {
      for (let nth = 1; nth < 12; nth += 1) {
        const host = new MemoryHost({ seed: nth });
        for (const [path, bytes] of Object.entries(before)) host.putFile(path, bytes);
        host.faults.add({ operation, nth, errno: 'ENOSPC' });
        const { error } = await make(host, making.by);
        host.faults.clear();
        if (error === null) break;
        const state = await found(host, making, before);
        // The last of all: what could not be made durable is there.
        const expected = operation === 'sync' ? ['old', 'new', ...refused] : ['old', ...refused];
        expect(expected, `${operation} ${nth}: ${error}`).toContainEqual(state);
        expect((await make(host, making.by)).error).toBeNull();
        expect(await found(host, making, before)).toBe('new');
      }
    }
  });

  it('is refused where one node is to hold header and payload: nothing is written', async () => {
    const disk = new CrashDisk();
    const files = await oldLuks();
    disk.putFile('/a', files['/a'] as Uint8Array);
    const by = { driver: 'luks', file: 'a', header: 'a', size: SIZE, ...MEMBERS };
    const { error } = await make(disk, by);
    expect(error).toBe(
      "Permission conflict on node 'a': permissions 'resize' are both required and unshared by " +
        "the children 'file' and 'header' of one image",
    );
    expect(disk.writeCount).toBe(0);
  });

  it('is refused where reserving space would shrink an image: that one stays', async () => {
    const disk = new CrashDisk();
    const files = await oldLuks();
    disk.putFile('/a', files['/a'] as Uint8Array);
    const options = { size: 512, ...MEMBERS, preallocation: 'full' };
    const { error } = await make(disk, { driver: 'luks', file: 'a', ...options });
    expect(error).toBe('Cannot use preallocation for shrinking files');
    expect(disk.writeCount).toBe(0);
  });
});
