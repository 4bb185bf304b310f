// SPDX-License-Identifier: Apache-2.0
// A bare node over one host file, for tests of code that needs a `file` child and no graph.
import { settle } from '../../src/base/index.js';
import type { Child, Node, Request } from '../../src/block/index.js';
import type { Host, HostFile } from '../../src/host/index.js';

export interface FileChild {
  readonly child: Child;
  readonly node: Node;
  readonly file: HostFile;
}

/** Opens `path` read-write (it must exist) as the child of a node under test. */
export async function fileChild(host: Host, path: string): Promise<FileChild> {
  const file = await host.openFile(path, { readOnly: false });
  const node = {
    name: 'file-node',
    filename: path,
    readOnly: false,
    driverNode: { hostFile: file },
    primary: null,
    get length() {
      return file.size();
    },
    read(request: Request) {
      const { buffer, offset } = request;
      if (buffer === null || offset + buffer.length > file.size()) {
        throw new Error(`read of ${request.length} bytes at ${offset} is out of range`);
      }
      return settle(file.read(buffer, offset), () => undefined);
    },
    write: (request: Request) => file.write(request.buffer ?? new Uint8Array(0), request.offset),
    writeZeroes: (request: Request) =>
      file.write(new Uint8Array(request.length), request.offset),
    blockStatus(offset: number, length: number) {
      const extent = file.extent(offset, length);
      return { ...extent, zero: extent.kind === 'hole', data: extent.kind === 'data' };
    },
    flush: () => file.sync(),
    truncate: (size: number) => file.truncate(size),
  } as unknown as Node;
  return { node, file, child: { name: 'file', node } as unknown as Child };
}
