// SPDX-License-Identifier: Apache-2.0
// Lazy refcounts: the dirty bit is on disk before refcounts change, goes when the image is closed,
// and makes whoever writes next count anew: here and with the real tools.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { writeRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { openOn } from '../helpers/qcow2-node.js';

const PATH = '/image';
const CLUSTER = 65_536;
const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');

const isDirty = (host: MemoryHost): boolean => ((host.fileContents(PATH)[79] ?? 0) & 1) !== 0;
const data = new Uint8Array(CLUSTER).fill(0xa7);

async function lazyImage(): Promise<MemoryHost> {
  const host = new MemoryHost({ seed: 3 });
  await createOn(host, PATH, { size: 16 * CLUSTER, 'lazy-refcounts': true });
  return host;
}

/** An image whose writer never came to close it. */
async function leftDirty(): Promise<MemoryHost> {
  const host = await lazyImage();
  const { node } = await openOn(host, PATH);
  await node.write(writeRequest(3 * CLUSTER, data));
  await node.flush();
  expect(isDirty(host)).toBe(true);
  return host;
}

function copyOf(host: MemoryHost): MemoryHost {
  const copy = new MemoryHost({ seed: 4 });
  copy.putFile(PATH, host.fileContents(PATH).slice());
  return copy;
}

describe('the dirty bit of lazy refcounts', () => {
  it('is set by the first allocation and cleared by a clean close', async () => {
    const host = await lazyImage();
    const { node } = await openOn(host, PATH);
    await node.flush();
    expect(isDirty(host)).toBe(false);
    await node.write(writeRequest(0, data));
    await node.flush();
    expect([isDirty(host), node.info().dirty]).toEqual([true, true]);
    await node.prepareReadOnly();
    expect([isDirty(host), node.info().dirty]).toEqual([false, false]);
    await node.write(writeRequest(0, data));
    await node.flush();
    // In place: no refcount changed.
    expect(isDirty(host)).toBe(false);
    await node.write(writeRequest(5 * CLUSTER, data));
    await node.flush();
    expect(isDirty(host)).toBe(true);
    await node.close();
    expect(isDirty(host)).toBe(false);
    expect(await checkOn(host, PATH)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('follows the option of the one who opens', async () => {
    const host = await lazyImage();
    const exact = await openOn(host, PATH, null, { lazyRefcounts: false });
    await exact.node.write(writeRequest(0, data));
    await exact.node.flush();
    expect(isDirty(host)).toBe(false);
    await exact.node.close();
    const plain = new MemoryHost({ seed: 3 });
    await createOn(plain, PATH, { size: 16 * CLUSTER });
    const lazy = await openOn(plain, PATH, null, { lazyRefcounts: true });
    await lazy.node.write(writeRequest(0, data));
    await lazy.node.flush();
    expect(isDirty(plain)).toBe(true);
    await lazy.node.close();
    expect(isDirty(plain)).toBe(false);
  });

  it('changes nothing for a reader, and a writer counts anew first', async () => {
    const host = await leftDirty();
    const before = host.fileContents(PATH).slice();
    const reader = await openOn(host, PATH, null, { readOnly: true });
    expect(await reader.read(3 * CLUSTER, CLUSTER)).toEqual(data);
    await reader.node.close();
    expect(Buffer.compare(host.fileContents(PATH), before)).toBe(0);

    // Refcounts of nothing but zeroes are as far behind as they can be.
    const bytes = host.fileContents(PATH).slice();
    bytes.fill(0, 2 * CLUSTER, 3 * CLUSTER);
    host.putFile(PATH, bytes);
    const writer = await openOn(host, PATH);
    expect(isDirty(host)).toBe(false);
    expect(await writer.read(3 * CLUSTER, CLUSTER)).toEqual(data);
    await writer.node.write(writeRequest(0, data));
    await writer.node.close();
    expect(await checkOn(host, PATH)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('stays where the image cannot be repaired, which is refused', async () => {
    const host = await leftDirty();
    const bytes = host.fileContents(PATH).slice();
    // The only L1 entry names an L2 table at an odd place.
    bytes[3 * CLUSTER + 6] = 0x02;
    host.putFile(PATH, bytes);
    const opened = openOn(host, PATH);
    await expect(opened.then(({ node }) => node.write(writeRequest(0, data)))).rejects.toThrow();
  });
});

describe.skipIf(qemuImg === null || qemuIo === null)('the dirty bit and the real tools', () => {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-lazy-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'image.qcow2');
  const run = (tool: string | null, ...args: string[]) =>
    spawnSync(tool ?? '', args, { encoding: 'utf8' });
  const checkStatus = (): number | null => run(qemuImg, 'check', '-q', path).status;

  it('left by a crash here is repaired there, by a check or by a writer', async () => {
    const host = await leftDirty();
    writeFileSync(path, host.fileContents(PATH));
    expect(run(qemuImg, 'check', '-q', '-r', 'all', path).status).toBe(0);
    expect(checkStatus()).toBe(0);
    writeFileSync(path, host.fileContents(PATH));
    const commands = ['-c', `read -P 0xa7 ${3 * CLUSTER} ${CLUSTER}`, '-c', 'write 0 64k'];
    const { status, stdout } = run(qemuIo, ...commands, path);
    expect([status, stdout.includes('failed')]).toEqual([0, false]);
    expect([checkStatus(), (readFileSync(path)[79] ?? 0) & 1]).toEqual([0, 0]);
  });

  it('left by a crash there is repaired here', async () => {
    run(qemuImg, 'create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', path, '1M');
    const commands = ['write -P 0xa7 192k 64k', 'write -z 0 64k', 'flush', 'abort'];
    run(qemuIo, ...commands.flatMap((command) => ['-c', command]), path);
    const host = new MemoryHost({ seed: 5 });
    host.putFile(PATH, readFileSync(path));
    expect(isDirty(host)).toBe(true);
    expect((await checkOn(copyOf(host), PATH)).corruptions).toBeGreaterThan(0);
    const image = await openOn(host, PATH);
    expect(isDirty(host)).toBe(false);
    expect(await image.read(3 * CLUSTER, CLUSTER)).toEqual(data);
    await image.node.write(writeRequest(8 * CLUSTER, data));
    await image.node.close();
    expect(await checkOn(host, PATH)).toMatchObject({ corruptions: 0, leaks: 0 });
    writeFileSync(path, host.fileContents(PATH));
    expect(checkStatus()).toBe(0);
  });
});
