// SPDX-License-Identifier: Apache-2.0
// An open qcow2 image over one file of a simulated host, without a graph.
import type { BlockError } from '../../src/base/index.js';
import { settle } from '../../src/base/index.js';
import { readRequest } from '../../src/block/index.js';
import type { Child, Extent, Node, OpenContext, Request } from '../../src/block/index.js';
import type { Qcow2Node } from '../../src/drivers/formats/qcow2/node.js';
import { openQcow2 } from '../../src/drivers/formats/qcow2/open.js';
import type { Host, HostFile } from '../../src/host/index.js';
import { fileChild } from './host-file-node.js';

export interface OpenedImage {
  readonly node: Qcow2Node;
  readonly file: HostFile;
  read(offset: number, length: number): Promise<Uint8Array>;
}

/**
 * Bytes that a backing node holds; shorter than the overlay when they are. With `later` it decides
 * by that chance whether it answers inline.
 */
export function backingNode(bytes: Uint8Array, later?: () => boolean): Node {
  const fill = (request: Request): void =>
    request.buffer?.set(bytes.subarray(request.offset, request.offset + request.length));
  return {
    name: 'backing',
    length: bytes.length,
    read: (request: Request) =>
      later?.() === true ? Promise.resolve().then(() => fill(request)) : fill(request),
    blockStatus: (offset: number, length: number) => {
      const zero = bytes.subarray(offset, offset + length).every((byte) => byte === 0);
      return { allocated: true, data: !zero, zero, length };
    },
  } as unknown as Node;
}

export async function openOn(
  host: Host,
  path: string,
  backing: Node | null = null,
  options: {
    readonly readOnly?: boolean;
    readonly lazyRefcounts?: boolean;
    readonly repairs?: boolean;
  } = {},
): Promise<OpenedImage> {
  const { node: fileNode, file } = await laneNode(host, path);
  const children = new Map([['file', { name: 'file', node: fileNode } as unknown as Child]]);
  const self = { name: 'image', filename: path, backing, children } as unknown as Node;
  const context: OpenContext = {
    host,
    node: self,
    readOnly: options.readOnly === true,
    inspectOnly: false,
    repairs: options.repairs === true,
    child: (name) => children.get(name) as Child,
    async openPlainChild(name, childPath) {
      const { node } = await laneNode(host, childPath);
      return { name, node } as unknown as Child;
    },
  };
  const node = (await openQcow2(context, {
    file: 'file',
    ...(options.lazyRefcounts !== undefined && { 'lazy-refcounts': options.lazyRefcounts }),
  } as never)) as Qcow2Node;
  return {
    node,
    file,
    async read(offset, length) {
      const buffer = new Uint8Array(length).fill(0xee);
      await settle(node.read(readRequest(offset, buffer)), () => undefined);
      return buffer;
    },
  };
}

/** A node over a file that lanes may work on. */
async function laneNode(host: Host, path: string): Promise<{ node: Node; file: HostFile }> {
  const { node: plain, file } = await fileChild(host, path);
  const node = Object.create(plain, {
    length: { get: () => file.size() },
    lease: { value: () => ({ release: () => undefined }) },
    discard: { value: (request: Request) => file.discard(request.offset, request.length) },
    planExtents: {
      value: (offset: number, length: number): readonly Extent[] => [
        { kind: 'data', length, file, hostOffset: offset },
      ],
    },
    reserve: {
      value: (offset: number, length: number) => ({
        pieces: [{ offset, length, file, hostOffset: offset, fresh: false }],
        link: () => undefined,
        abandon: () => undefined,
      }),
    },
  }) as Node;
  return { node, file };
}

/** The kind of the error that `action` ends with, or null. */
export async function failureOf(action: () => unknown): Promise<BlockError | null> {
  try {
    await action();
    return null;
  } catch (error) {
    return error as BlockError;
  }
}

/** Whether the bytes are their first `period` bytes again and again. */
export function repeats(bytes: Uint8Array, period: number): boolean {
  return Buffer.compare(bytes.subarray(period), bytes.subarray(0, -period)) === 0;
}
