// SPDX-License-Identifier: Apache-2.0
// Makes qcow2 images with this program's own create, on the simulated host.
import type { CreateContext } from '../../src/block/index.js';
import { createQcow2 } from '../../src/drivers/formats/qcow2/create/index.js';
import type { Qcow2CreateOptions } from '../../src/drivers/formats/qcow2/options.js';
import { MemoryHost } from '../../src/host/index.js';
import { fileChild } from './host-file-node.js';
import { LUKS_PASSWORD } from './luks.js';

export type CreateOptions = Omit<Qcow2CreateOptions, 'file'>;

/** Creates the image in `host` at `path`, and a data file at the path that `data-file` gives. */
export async function createOn(
  host: MemoryHost,
  path: string,
  options: CreateOptions,
): Promise<void> {
  const context: CreateContext = {
    host,
    secret: () => Buffer.from(LUKS_PASSWORD),
    async node(reference) {
      await (await host.createFile(String(reference))).close();
      return (await fileChild(host, String(reference))).node;
    },
  };
  await createQcow2(context, { file: path, ...options });
}

/** The bytes of a new image. */
export async function createdBytes(options: CreateOptions): Promise<Uint8Array> {
  const host = new MemoryHost();
  await createOn(host, '/image', options);
  return host.fileContents('/image');
}
