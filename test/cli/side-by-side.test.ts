// SPDX-License-Identifier: Apache-2.0
// The same command lines through Blockwright and through the real qemu-img, in twin folders:
// output, complaints and exit status must be the same bytes. One line in ten goes through the shim
// (in campaigns each), the others are served by one process.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { openNativeHost } from '../../src/host/index.js';
import { complaintsOf } from '../helpers/command-line.js';
import { CommandServer } from '../helpers/command-server.js';
import { peer } from '../helpers/peers.js';

const PROGRAM = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const STEP = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? 10 : 1;
const server = new CommandServer();
let lines = 0;

interface Outcome {
  readonly out: string;
  readonly err: string;
  readonly status: number | null;
}

let folder = '';
const theirs = (): string => join(folder, 'theirs');
const ours = (): string => join(folder, 'ours');

function run(program: string, args: readonly string[], cwd: string): Outcome {
  const { stdout, stderr, status } = spawnSync(program, args, { cwd, encoding: 'utf8' });
  return { out: stdout, err: complaintsOf(stderr), status };
}

function shim(args: readonly string[]): Outcome {
  lines += 1;
  if (lines % STEP === 0) return run(join(folder, 'bin', 'qemu-img'), args, ours());
  const { out, err, status } = server.run(ours(), ['--as', 'qemu-img', 'img', ...args]);
  return { out, err, status };
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'blockwright-cli-'));
  mkdirSync(theirs());
  run(process.execPath, [PROGRAM, 'shim', join(folder, 'bin')], folder);
  if (qemuImg === null || qemuIo === null) return;
  const make = (line: string): void => void run(qemuImg, line.split(' '), theirs());
  make('create -f qcow2 a.qcow2 4M');
  const writes = ['-c', 'write -P 3 0 1M', '-c', 'write -z 2M 512k', '-c', 'write -P 4 3M 64k'];
  run(qemuIo, [...writes, 'a.qcow2'], theirs());
  make('create -f qcow2 -b a.qcow2 -F qcow2 o.qcow2');
  run(qemuIo, ['-c', 'write -P 5 1M 64k', 'o.qcow2'], theirs());
  make('convert -O raw a.qcow2 a.raw');
  make('convert -c -O qcow2 a.qcow2 c.qcow2');
  make('create -f raw big.raw 5M');
  make('convert -n -O raw a.qcow2 big.raw');
  make('create -f qcow2 -o compat=0.10 v2.qcow2 1M');
  make('create -f qcow2 -b gone.raw -F raw -u gone.qcow2 1M');
  cpSync(theirs(), ours(), { recursive: true });
});

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

const LINES = [
  'map json:{"driver":"qcow2","file.filename":"a.qcow2"}',
  'check -f raw json:{"driver":"qcow2","file.filename":"a.qcow2"}',
  '',
  'nothing',
  'create',
  'create -f qcow2 n1 10M',
  'create -f qcow2 n1 10M extra',
  'create -f qcow2 n2',
  'create -f nope n2 1M',
  'create -f raw n3 1.5k',
  'create -f raw n3 1x',
  'create -f raw n3 16E',
  'create -f qcow2 -b a.qcow2 n4',
  'create -f qcow2 -b a.qcow2 -F qcow2 n4',
  'create -f qcow2 -b gone -F qcow2 n5',
  'create -f raw -b a.qcow2 -F qcow2 n5',
  'create -f qcow2 -o cluster_size=4k,refcount_bits=1,lazy_refcounts=on n6 1M',
  'create -f qcow2 -o cluster_size=3k n7 1M',
  'create -f qcow2 -o foo=1 n7 1M',
  'create -f qcow2 -o lazy_refcounts=maybe n7 1M',
  'create -qZ n7 1M',
  'create -f qcow2 -o nocow=on,extent_size_hint=1M n8 1M',
  'create -f qcow2 -o preallocation=metadata n10 10M',
  // The portable host sees no holes.
  ...(openNativeHost() === null ? [] : ['map --output=json n10']),
  'create -f qcow2 -o preallocation=falloc n11 1M',
  'create -f qcow2 -o preallocation=full -b a.qcow2 -F qcow2 n12',
  'convert -O qcow2 -o preallocation=full a.qcow2 x7',
  'create -f raw -F raw n9 1M',
  'create -f qcow2 -o refcount_bits=-1 n7 1M',
  'create -f qcow2 -o data_file_raw=on n7 1M',
  'convert -S 0 -O qcow2 -B a.qcow2 -F qcow2 o.qcow2 x9',
  'map x9',
  'convert -c -S 0 -O qcow2 -B a.qcow2 -F qcow2 o.qcow2 x9',
  'compare x9 o.qcow2',
  'convert a.qcow2 foo:bar',
  'amend -o , -Z a.qcow2',
  'info file:x:y',
  'info -U --image-opts driver=null-co,force-share=off',
  'compare --image-opts file.filename=o.qcow2,backing.file.filename=c.qcow2,backing.driver=qcow2 ' +
    'file.filename=a.raw',
  'measure -O qcow2 --size 7E',
  'measure -O qcow2 -o , a.qcow2',
  'measure -O qcow2 -l snapshot.foo a.qcow2',
  'create -f raw n14 43009',
  ...(openNativeHost() === null ? [] : ['map --output=json n14']),
  'create -f qcow2 -u -b a.qcow2 -F nope n13 1M',
  'convert -O qcow2 -B a.qcow2 -F nope a.qcow2 n13',
  'compare --image-opts -f qcow2 file.filename=a.qcow2 file.filename=a.raw',
  'info --image-opts filename=a.raw',
  'info -f null-co a.raw',
  'info null-co://',
  'info -f null-co null-co://',
  'convert -O null-co a.qcow2 x8',
  'convert -O qcow2 -n a.qcow2 a.qcow2',
  'convert -O qcow2 -B a.qcow2 a.qcow2 o.qcow2 x8',
  'create -f',
  'check a.qcow2',
  'check --output=json c.qcow2',
  'check a.raw',
  'check gone.qcow2',
  'map o.qcow2',
  'map --output=json o.qcow2',
  'map c.qcow2',
  'map -s 512k -l 1M --output=json o.qcow2',
  'map -s 20M --output=json o.qcow2',
  'map -s x o.qcow2',
  'compare a.qcow2 a.raw',
  'compare a.qcow2 o.qcow2',
  'compare -q a.qcow2 o.qcow2',
  'compare -s a.qcow2 a.raw',
  'compare a.raw big.raw',
  'compare -s a.raw big.raw',
  'compare a.raw gone',
  'compare a.raw',
  'convert a.qcow2',
  'convert a.qcow2 x1',
  'convert -c -O qcow2 a.qcow2 x2',
  'convert -O qcow2 -B a.qcow2 -F qcow2 o.qcow2 x3',
  'convert -O qcow2 -B a.qcow2 o.qcow2 x4',
  'convert -O qcow2 o.qcow2 a.raw x5',
  'convert -S 0 o.qcow2 x6',
  'convert -S 100 o.qcow2 x7',
  'convert -m 17 o.qcow2 x7',
  'convert -O raw --target-is-zero a.qcow2 big.raw',
  'convert -O qcow2 -n a.qcow2 v2.qcow2',
  'info --output=xml a.qcow2',
  'info gone',
  'info -f foo a.raw',
  'info .',
  'info a b',
];

describe.skipIf(qemuImg === null || qemuIo === null)('beside the real qemu-img', () => {
  it.each(LINES)('answers the same: %s', (line) => {
    const args = line.split(' ').filter((word) => word !== '');
    expect(shim(args)).toEqual(run(qemuImg ?? '', args, theirs()));
  });

  it('names who holds a file only under its own name', () => {
    const args = ['img', 'convert', '-O', 'qcow2', '-n', 'a.qcow2', 'a.qcow2'];
    const { err, status } = run(process.execPath, [PROGRAM, ...args], ours());
    expect(status).toBe(1);
    expect(err).toMatch(/\nIt is held by node '#block\d+'\.\n$/u);
    expect(shim(args.slice(1)).err).not.toContain('held by');
  });

  const described = ['a.qcow2', 'o.qcow2', 'v2.qcow2', 'a.raw', 'gone.qcow2'];
  it.each(described)('describes %s alike', (name) => {
    for (const output of ['human', 'json']) {
      const args = ['info', `--output=${output}`, join(ours(), name)];
      expect(shim(args)).toEqual(run(qemuImg ?? '', args, ours()));
    }
  });

  it.each(['x1', 'x2', 'x3', 'x5', 'x6', 'x7'])('wrote the same content into %s', (name) => {
    const args = ['compare', join(theirs(), name), join(ours(), name)];
    expect(run(qemuImg ?? '', args, folder)).toMatchObject({ status: 0 });
  });
});

describe('alone', () => {
  it('makes, describes, checks and maps an image with the expected texts', () => {
    expect(shim(['create', '-f', 'qcow2', 'e', '1M'])).toEqual({
      out:
        "Formatting 'e', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib " +
        'size=1048576 lazy_refcounts=off refcount_bits=16\n',
      err: '',
      status: 0,
    });
    expect(shim(['check', 'e']).out).toBe(
      'No errors were found on the image.\nImage end offset: 262144\n',
    );
    expect(shim(['map', '--output=json', 'e']).out).toBe(
      '[{ "start": 0, "length": 1048576, "depth": 0, "present": false, "zero": true, ' +
        '"data": false}]\n',
    );
    expect(shim(['info', 'e']).out).toContain('virtual size: 1 MiB (1048576 bytes)\n');
  });

  it('refuses by name what is not supported', () => {
    const object = 'tls-creds-psk,id=s';
    expect(shim(['convert', '--object', object, 'e', 'f'])).toMatchObject({
      err: "qemu-img: Parameter 'qom-type' does not accept value 'tls-creds-psk'\n",
      status: 1,
    });
  });

  it('a failed create leaves an older file as it was', () => {
    const before = shim(['info', '--output=json', 'e']).out;
    expect(shim(['create', '-f', 'qcow2', '-o', 'cluster_size=3k', 'e', '1M']).status).toBe(1);
    expect(shim(['info', '--output=json', 'e']).out).toBe(before);
  });

  it('an interrupted convert fails and leaves a clean, closed target', async () => {
    const args = ['convert', '-p', '-r', '1M', '-O', 'qcow2', 'dense', 'cut'];
    writeFileSync(join(ours(), 'dense'), Buffer.alloc(8 * 1024 * 1024, 7));
    const child = spawn(join(folder, 'bin', 'qemu-img'), args, { cwd: ours() });
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    const [status] = (await once(child, 'exit')) as [number | null];
    expect(status).toBe(130);
    expect(shim(['check', 'cut']).status).toBe(0);
  });

  it('progress as JSON lines ends at 100 percent', () => {
    const { out, status } = shim(['convert', '--progress', 'json', '-O', 'raw', 'e', 'f']);
    const lines = out.trim().split('\n').map((line) => JSON.parse(line) as { percent: number });
    expect(status).toBe(0);
    expect(lines.at(-1)?.percent).toBe(100);
  });

  it('the shim overwrites its own files only', () => {
    const bin = join(folder, 'bin');
    expect(run(process.execPath, [PROGRAM, 'shim', bin], folder).status).toBe(0);
    expect(run(process.execPath, [PROGRAM, 'shim', join(bin, 'qemu-img')], folder).status).toBe(1);
    const foreign = join(folder, 'foreign');
    mkdirSync(foreign);
    cpSync('/bin/sh', join(foreign, 'qemu-img'));
    const refused = run(process.execPath, [PROGRAM, 'shim', foreign], folder);
    expect(refused).toMatchObject({ status: 1, out: '' });
  });
});
