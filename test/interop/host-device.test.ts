// SPDX-License-Identifier: Apache-2.0
// Block devices (loop devices, where they can be made) beside the real programs.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Permission } from '../../src/base/index.js';
import { RequestFlag } from '../../src/block/index.js';
import type { Backend, TruncateOptions } from '../../src/block/index.js';
import { createEngine, prepareSnapshotInto } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import { nativeAddon, openDefaultHost } from '../../src/host/index.js';
import { errorOf, pattern, READ_WRITE } from '../helpers/graph.js';
import { loopDevice } from '../helpers/loop-device.js';
import type { LoopDevice } from '../helpers/loop-device.js';
import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';

const MIB = 1024 * 1024;
const SIZE = 4 * MIB;
const folder = mkdtempSync(join(tmpdir(), 'host-device-'));
const backing = join(folder, 'disk');
writeFileSync(backing, new Uint8Array(SIZE));
const device: LoopDevice | null = loopDevice(backing);

afterAll(() => {
  device?.[Symbol.dispose]();
  rmSync(folder, { recursive: true });
});

const hasDevice = device !== null && hasReference;

describe.skipIf(!hasDevice)('a block device', () => {
  const path = device?.path ?? '';
  let engine: Engine;

  beforeEach(async () => {
    engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
  });
  afterEach(() => engine.close());

  async function open(more: Record<string, unknown> = {}): Promise<Backend> {
    const options = { driver: 'host_device', 'node-name': 'dev', filename: path, ...more };
    const node = await engine.addNode({ discard: 'unmap', ...options });
    return await engine.graph.attach(node, 'guest', READ_WRITE);
  }

  const io = (...commands: string[]): string => {
    const args = commands.flatMap((one) => ['-c', one]);
    const image = `driver=host_device,filename=${path},discard=unmap`;
    return spawnSync(peer('qemu-io') as string, [...args, '--image-opts', image], {
      encoding: 'utf8',
    }).stdout;
  };

  it('is opened and refused as by the real daemon', () =>
    compare((directory) => {
      const add = (driver: string, filename: string): string =>
        command('blockdev-add', { driver, filename, 'node-name': 'n' });
      return [
        hello,
        add('file', path),
        add('host_device', join(directory, 'base.qcow2')),
        add('host_device', directory),
        add('host_device', join(directory, 'gone')),
        add('host_device', path),
        command('query-named-block-nodes', { flat: true }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'n' }),
        command('block_resize', { 'node-name': 'r', size: 2 * SIZE }),
        command('block_resize', { 'node-name': 'r', size: SIZE / 2 }),
        command('block_resize', { 'node-name': 'r', size: SIZE }),
        command('query-named-block-nodes', { flat: true }),
      ];
    }));

  it('keeps what is written, zeroed and discarded', async () => {
    const user = await open();
    expect(user.node.length).toBe(SIZE);
    await user.write(0, pattern(MIB));
    await user.writeZeroes(4096, 65_536);
    await user.writeZeroes(131_072, 65_536, RequestFlag.mayUnmap);
    await user.writeZeroes(300_001, 1000);
    await user.discard(524_288, 65_536);
    await user.flush();
    const expected = pattern(MIB);
    expected.fill(0, 4096, 69_632);
    expected.fill(0, 131_072, 196_608);
    expected.fill(0, 300_001, 301_001);
    const there = new Uint8Array(MIB);
    await user.read(0, there);
    if (nativeAddon() === null) there.copyWithin(0, 0);
    else expected.fill(0, 524_288, 589_824);
    expect(Buffer.compare(there, expected)).toBe(0);
    await user.detach();
    await engine.deleteNode('dev');
    expect(io('read -P 0 4096 65536', 'read -P 0 131072 65536')).not.toContain('failed');
    io('write -P 7 1M 64k');
    const again = await open();
    await again.read(MIB, there.subarray(0, 65_536));
    expect(there.subarray(0, 65_536)).toEqual(new Uint8Array(65_536).fill(7));
    await again.detach();
  });

  it('has the size that it has', async () => {
    const user = await open();
    const resize = (size: number, more: Partial<TruncateOptions> = {}): Promise<Error> =>
      errorOf(() => user.node.truncate(size, { exact: false, preallocation: 'off', ...more }));
    user.setPermissions({ ...READ_WRITE, taken: Permission.all });
    expect((await resize(2 * SIZE)).message).toBe('Cannot grow device files');
    expect((await resize(SIZE / 2, { exact: true })).message).toBe('Cannot resize device files');
    const text = "Preallocation mode 'full' unsupported for this non-regular file";
    expect((await resize(SIZE, { preallocation: 'full' })).message).toBe(text);
    await user.node.truncate(SIZE / 2, { exact: false, preallocation: 'off' });
    expect(user.node.length).toBe(SIZE);
    await user.detach();
  });

  it('is found behind a plain path, behind its prefix and in a chain', async () => {
    for (const name of [path, `host_device:${path}`]) {
      const node = await engine.graph.openImage(name, null, true);
      expect(node.primary?.driver.name).toBe('host_device');
      expect(node.filename).toBe(path);
      await engine.graph.close(node);
    }
    const overlay = join(folder, 'overlay.qcow2');
    const img = peer('qemu-img') as string;
    execFileSync(img, ['create', '-q', '-f', 'qcow2', '-b', path, '-F', 'raw', overlay]);
    const node = await engine.graph.openImage(overlay, null, true);
    expect(node.backing?.primary?.driver.name).toBe('host_device');
    await engine.graph.close(node);
  });

  it('takes a new image and a snapshot, as files do', async () => {
    const session = new Uint8Array(65_536).fill(5);
    const base = join(folder, 'base.raw');
    writeFileSync(base, new Uint8Array(MIB));
    const below = { driver: 'raw', file: { driver: 'file', filename: base } };
    const node = await engine.addNode({ ...below, 'node-name': 'base' });
    const guest = await engine.graph.attach(node, 'guest', READ_WRITE);
    const request = { file: path, name: 'snap', format: 'qcow2', existing: false };
    await (await prepareSnapshotInto(engine, node, request)).commit();
    await guest.write(0, session);
    expect(guest.node.primary?.driver.name).toBe('host_device');
    await guest.detach();
    await engine.close();
    const info = execFileSync(peer('qemu-img') as string, ['info', path], { encoding: 'utf8' });
    expect(info).toContain('file format: qcow2');
    expect(info).toContain(base);
    execFileSync(peer('qemu-img') as string, ['check', '-q', path]);
  });

  it('holds a qcow2 image, which cannot outgrow it', async () => {
    const img = peer('qemu-img') as string;
    execFileSync(img, ['create', '-q', '-f', 'qcow2', path, '64M']);
    const node = await engine.addNode({
      driver: 'qcow2',
      'node-name': 'image',
      file: { driver: 'host_device', filename: path },
    });
    const user = await engine.graph.attach(node, 'guest', READ_WRITE);
    await user.write(0, pattern(MIB));
    const full = await errorOf(() => user.write(8 * MIB, new Uint8Array(8 * MIB).fill(1)));
    expect(full).toMatchObject({ errno: 'ENOSPC' });
    await user.write(4 * MIB, pattern(65_536, 2));
    await user.flush();
    await user.detach();
    await engine.close();
    execFileSync(img, ['check', '-q', '-f', 'qcow2', path]);
    const flat = join(folder, 'flat');
    execFileSync(img, ['convert', '-f', 'qcow2', '-O', 'raw', path, flat]);
    const output = spawnSync(
      peer('qemu-io') as string,
      ['-f', 'raw', '-c', 'read -v 0 16', '-c', 'read -v 4M 16', flat],
      { encoding: 'utf8' },
    ).stdout;
    const hex = [...pattern(16)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    expect(output).toContain(hex);
  });

  it.skipIf(nativeAddon() === null)('is locked against the real programs', async () => {
    const user = await open();
    user.setPermissions({ taken: Permission.write, shared: 0 });
    const { stderr } = spawnSync(peer('qemu-img') as string, ['resize', '-f', 'raw', path, '1M'], {
      encoding: 'utf8',
    });
    expect(stderr).toContain('lock');
    await user.detach();
  });
});

describe.skipIf(!hasDevice)('a device of 4 KiB sectors, opened past the cache', () => {
  const image = join(folder, 'large-sectors');
  let large: LoopDevice | null = null;
  beforeAll(() => {
    writeFileSync(image, new Uint8Array(MIB));
    large = loopDevice(image, 4096);
  });
  afterAll(() => large?.[Symbol.dispose]());

  it('takes requests of any size', async () => {
    const engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
    const node = await engine.addNode({
      driver: 'host_device',
      'node-name': 'dev',
      filename: (large as LoopDevice | null)?.path ?? '',
      cache: { direct: true },
    });
    expect(node.limits.requestAlignment).toBe(4096);
    const user = await engine.graph.attach(node, 'guest', READ_WRITE);
    await user.write(0, pattern(8192));
    await user.write(1000, new Uint8Array(5000).fill(3));
    const expected = pattern(8192);
    expected.fill(3, 1000, 6000);
    const there = new Uint8Array(8192);
    await user.read(0, there);
    expect(there).toEqual(expected);
    await user.detach();
    await engine.close();
  });
});
