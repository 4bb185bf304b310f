// SPDX-License-Identifier: Apache-2.0
// The same commands through the shim's qemu-io and through the real one, in twin folders: output,
// complaints, exit status and what is left in the files must be the same. Times are masked.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { complaintsOf } from '../helpers/command-line.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';
import { IoTwins } from '../helpers/io-twins.js';
import { SCRIPTS } from './io-scripts.js';

const qemuImg = peer('qemu-img') ?? '';
const qemuIo = peer('qemu-io') ?? '';

let twins: IoTwins;

const words = (text: string): string[] => text.split(' ').filter((word) => word !== '');

function commands(text: string): string[] {
  return text.split('; ').flatMap((command) => ['-c', command]);
}

describe.skipIf(qemuImg === '' || qemuIo === '')('beside the real qemu-io', () => {
  beforeAll(() => {
    twins = new IoTwins();
    const { root } = twins;
    writeFileSync(join(root, 'first', 'abc'), 'abc');
    writeFileSync(join(root, 'first', 'empty'), '');
    writeFileSync(join(root, 'first', 'a.raw'), Buffer.alloc(300 * 1024));
    twins.prepare(qemuImg, 'create', '-f', 'qcow2', 'a.qcow2', '1M');
    twins.prepare(qemuImg, 'create', '-f', 'qcow2', 'b.qcow2', '3M');
    twins.prepare(qemuIo, '-c', 'write -P 3 64k 200k', 'b.qcow2');
    twins.prepare(qemuImg, 'create', '-f', 'qcow2', '-b', 'b.qcow2', '-F', 'qcow2', 'o.qcow2');
  });

  beforeEach(() => twins.reset());

  afterAll(() => twins.remove());

  it.each(someOf(SCRIPTS, 5))('answers the same: %s | %s', (left, script) => {
    const args = [...words(left), ...commands(script)];
    expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
    expect(twins.differences(qemuImg)).toEqual([]);
  });

  const inputs = [
    'length\nfoo\n  read   0 512\naio_write 0 64k\naio_flush\n\ninfo\nread -v 0 8\nquit\nlength\n',
    'length',
    '',
    'write 0 1k\nread -P 1 0 1k\nmap',
    'close\nlength\nopen b.qcow2\nmap\nopen b.qcow2\n',
  ];
  it.each(inputs)('reads commands from standard input alike: %j', (input) => {
    expect(twins.shim('qemu-io', ['a.qcow2'], input)).toEqual(
      twins.real(qemuIo, ['a.qcow2'], input),
    );
    expect(twins.differences(qemuImg)).toEqual([]);
  });

  it('needs no file for commands from standard input', () => {
    const input = 'length\nopen -r b.qcow2\nmap\n';
    expect(twins.shim('qemu-io', [], input)).toEqual(twins.real(qemuIo, [], input));
  });

  it('a map tells of whole clusters where some were written in part', () => {
    const writes = ['-c', 'write 0 1k', '-c', 'write 512k 4k', 'a.qcow2'];
    twins.shim('qemu-io', writes);
    twins.real(qemuIo, writes);
    const map = ['map', '--output=json', 'a.qcow2'];
    expect(twins.shim('qemu-img', map)).toEqual(twins.real(qemuImg, map));
  });

  const signals = [9, 15, 11, 25, 64].map((signal) => `sigraise ${signal}`);
  const deadly = ['abort', ...signals];
  it.each(deadly)('%s ends it by the signal, and what was written is there', (command) => {
    const args = ['-c', 'write -P 7 0 64k', '-c', command, 'a.qcow2'];
    const ours = twins.shim('qemu-io', args);
    const { status, signal } = twins.real(qemuIo, args);
    expect(ours).toMatchObject({ status, signal });
    expect(twins.differences(qemuImg)).toEqual([]);
  });

  it('prints complaints before results where both go to one file', () => {
    const line = 'qemu-io -c "write 0 1k" -c foo -c "read 0 x" -c length a.qcow2 2>&1';
    const both = (bin: string, cwd: string): string =>
      complaintsOf(
        spawnSync('sh', ['-c', line], { cwd, env: { PATH: bin }, encoding: 'utf8' }).stdout,
      ).replaceAll(/ops; .*/g, 'ops');
    const path = process.env['PATH'] ?? '';
    const mine = both(`${join(twins.root, 'bin')}:${path}`, twins.ours);
    expect(mine).toBe(both(path, twins.theirs));
    expect(mine).toMatch(/^command "foo" not found\n/);
  });

  it('goes on after signals that have no effect', () => {
    const signals = [0, 7, 10, 13, 14, 17, 23, 29, 32, 65];
    const args = signals.flatMap((signal) => ['-c', `sigraise ${signal}`]);
    expect(twins.shim('qemu-io', args)).toEqual(twins.real(qemuIo, args));
  });
});
