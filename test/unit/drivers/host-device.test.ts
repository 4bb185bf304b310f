// SPDX-License-Identifier: Apache-2.0
// Which of the two drivers opens what, without a device: a host that calls files devices.
import { describe, expect, it } from 'vitest';

import type { Driver, Graph } from '../../../src/block/index.js';
import { hostDeviceDriver } from '../../../src/drivers/protocols/file/index.js';
import type { FileStat, HostFile, OpenFileOptions } from '../../../src/host/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_WRITE,
} from '../../helpers/graph.js';

/** What lies in /dev is a block device. */
class HostWithDevices extends MemoryHost {
  override async openFile(path: string, options: OpenFileOptions): Promise<HostFile> {
    const file = await super.openFile(path, options);
    return Object.defineProperty(file, 'kind', {
      value: path.startsWith('/dev/') ? 'block-device' : 'file',
    });
  }

  override async stat(path: string): Promise<FileStat | null> {
    const found = await super.stat(path);
    return found !== null && path.startsWith('/dev/') ? { ...found, kind: 'block-device' } : found;
  }
}

async function stage(): Promise<Graph> {
  const host = new HostWithDevices();
  await makeFile(host, '/dev/disk', pattern(65_536));
  await makeFile(host, '/file', pattern(65_536));
  return graphOn(host, [hostDeviceDriver as unknown as Driver<never>]);
}

describe('host_device', () => {
  it('and file refuse what is the other\'s', async () => {
    const graph = await stage();
    const open = (driver: string, filename: string): Promise<Error> =>
      errorOf(() => graph.open({ driver, filename }));
    expect((await open('file', '/dev/disk')).message).toBe(
      "'file' driver requires '/dev/disk' to be a regular file",
    );
    expect((await open('host_device', '/file')).message).toBe(
      "'host_device' driver requires '/file' to be either a character or block device",
    );
    expect((await open('host_device', '/gone')).message).toContain('No such file');
    expect([...graph.nodes]).toEqual([]);
  });

  it('is found by the path, and keeps its size', async () => {
    const graph = await stage();
    const node = await graph.openImage('/dev/disk', 'raw', false);
    expect(node.primary?.driver.name).toBe('host_device');
    const user = await graph.attach(node, 'guest', READ_WRITE);
    await user.write(0, pattern(4096, 2));
    await node.truncate(4096, { exact: false, preallocation: 'off' });
    expect(node.length).toBe(65_536);
    const error = await errorOf(() =>
      node.truncate(131_072, { exact: false, preallocation: 'off' }),
    );
    expect(error.message).toBe('Cannot grow device files');
    const plain = await graph.openImage('/file', 'raw', true);
    expect(plain.primary?.driver.name).toBe('file');
  });
});
