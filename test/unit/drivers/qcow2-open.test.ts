// SPDX-License-Identifier: Apache-2.0
// What opening a qcow2 image refuses, reports and changes.
import { describe, expect, it } from 'vitest';
import type { DriverNode, Node, OpenContext } from '../../../src/block/index.js';
import { qcow2Driver } from '../../../src/drivers/formats/qcow2/index.js';
import type { Qcow2Options } from '../../../src/drivers/formats/qcow2/options.js';
import { CrashDisk, MemoryHost } from '../../../src/host/index.js';
import { fileChild } from '../../helpers/host-file-node.js';
import { createdBytes } from '../../helpers/qcow2-create.js';

const MIB = 1024 * 1024;
const PATH = '/images/disk.qcow2';

interface How {
  readonly readOnly: boolean;
  readonly inspectOnly?: boolean;
  readonly options?: Partial<Qcow2Options>;
}

async function open(host: MemoryHost, how: How): Promise<DriverNode> {
  const { child } = await fileChild(host, PATH);
  const context: OpenContext = {
    host,
    node: { name: 'disk', backing: null, children: new Map() } as unknown as Node,
    readOnly: how.readOnly,
    inspectOnly: how.inspectOnly ?? false,
    noData: how.inspectOnly ?? false,
    child: () => child,
  };
  return qcow2Driver.open(context, { file: 'file-node', ...how.options });
}

async function hostWith(poke: (bytes: Uint8Array) => void): Promise<MemoryHost> {
  const bytes = await createdBytes({ size: MIB, 'backing-file': 'base.raw', 'backing-fmt': 'raw' });
  poke(bytes);
  const host = new MemoryHost();
  host.putFile(PATH, bytes);
  return host;
}

const setBits = (offset: number, value: number) => (bytes: Uint8Array) => {
  bytes[offset] = value;
};

describe('opening qcow2', () => {
  it('reports size, backing link and facts', async () => {
    const node = await open(await hostWith(() => undefined), { readOnly: true });
    expect(node.length).toBe(MIB);
    expect(node.backingLink?.()).toEqual({ file: 'base.raw', format: 'raw' });
    expect(node.info?.()).toEqual({
      clusterSize: 65_536,
      dirty: false,
      corrupt: false,
      specific: {
        type: 'qcow2',
        data: {
          compat: '1.1',
          'compression-type': 'zlib',
          'lazy-refcounts': false,
          'refcount-bits': 16,
          corrupt: false,
          'extended-l2': false,
        },
      },
    });
    await node.close();
  });

  it('reads an image with the corrupt bit and refuses to write it by that name', async () => {
    const host = await hostWith(setBits(79, 2));
    const before = host.fileContents(PATH);
    const node = await open(host, { readOnly: true });
    expect(node.info?.().corrupt).toBe(true);
    await node.close();
    await expect(open(host, { readOnly: false })).rejects.toMatchObject({
      kind: 'access-denied',
      message: expect.stringContaining('corrupt'),
      context: { path: PATH },
    });
    expect(Buffer.compare(host.fileContents(PATH), before)).toBe(0);
  });

  it('reads an image with the dirty bit as it is and repairs it to be written', async () => {
    const host = await hostWith(setBits(79, 1));
    const before = host.fileContents(PATH);
    const node = await open(host, { readOnly: true });
    expect(node.info?.().dirty).toBe(true);
    await node.close();
    expect(Buffer.compare(host.fileContents(PATH), before)).toBe(0);
    const writable = await open(host, { readOnly: false });
    expect(writable.info?.().dirty).toBe(false);
    await writable.close();
  });

  it('names the path of an image that is refused', async () => {
    const host = await hostWith(setBits(3, 0));
    await expect(open(host, { readOnly: true })).rejects.toMatchObject({
      kind: 'corrupt-image',
      message: expect.stringContaining('Image is not in qcow2 format'),
      context: { path: PATH },
    });
  });

  it('refuses the format of an encryption that the image has not', async () => {
    const host = await hostWith(() => undefined);
    const options = { encrypt: { format: 'aes' as const } };
    await expect(open(host, { readOnly: true, options })).rejects.toMatchObject({
      kind: 'invalid-option',
      message: "No encryption in image header, but options specified format 'aes'",
    });
  });

  it('clears autoclear bits before it writes, and only read-write', async () => {
    const bytes = (await hostWith(setBits(95, 0x84))).fileContents(PATH);
    bytes[80] = 0x11;
    const disk = new CrashDisk();
    disk.putFile(PATH, bytes);
    await (await open(disk, { readOnly: true })).close();
    await (await open(disk, { readOnly: false, inspectOnly: false })).close();
    const durable = disk.durable().fileContents(PATH);
    expect([...durable.subarray(88, 96)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(durable[80]).toBe(0x11);
    bytes.fill(0, 88, 96);
    expect(Buffer.compare(durable, bytes)).toBe(0);
  });

  it('does not change an image that it only looks at', async () => {
    const host = await hostWith(setBits(95, 0x84));
    const before = host.fileContents(PATH);
    await (await open(host, { readOnly: true, inspectOnly: true })).close();
    expect(Buffer.compare(host.fileContents(PATH), before)).toBe(0);
  });
});

describe('an encrypted image without its key', () => {
  const text = "Parameter 'encrypt.key-secret' is required for cipher";

  it('is refused, but reported when only looked at', async () => {
    const host = await hostWith(setBits(35, 1));
    await expect(open(host, { readOnly: true })).rejects.toMatchObject({
      kind: 'invalid-option',
      message: text,
    });
    const node = await open(host, { readOnly: true, inspectOnly: true });
    expect(node.length).toBe(MIB);
    expect(node.info?.().encrypted).toBe(true);
    expect(node.backingLink?.()).toEqual({ file: 'base.raw', format: 'raw' });
    expect(() => node.blockStatus?.(0, 512, false)).toThrow(text);
    await expect(node.check?.('none')).rejects.toThrow(text);
    await node.close();
  });
});
