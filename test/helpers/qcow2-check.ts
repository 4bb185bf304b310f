// SPDX-License-Identifier: Apache-2.0
// Runs this program's check on the bytes of an image, without graph and data path.
import type { CheckResult } from '../../src/block/index.js';
import { checkImage } from '../../src/drivers/formats/qcow2/check/index.js';
import { readHeader } from '../../src/drivers/formats/qcow2/structures.js';
import { MemoryHost } from '../../src/host/index.js';
import { fileChild } from './host-file-node.js';

export async function checkBytes(bytes: Uint8Array): Promise<CheckResult> {
  const host = new MemoryHost();
  host.putFile('/image', bytes);
  return checkOn(host, '/image');
}

export async function checkOn(host: MemoryHost, path: string): Promise<CheckResult> {
  const { child, node } = await fileChild(host, path);
  return checkImage(child, await readHeader(node), 'none');
}
