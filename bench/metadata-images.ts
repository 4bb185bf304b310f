// SPDX-License-Identifier: Apache-2.0
// qcow2 images for the benches of metadata: all tables are there, the data are holes.
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { SeededRandom } from 'blockwright/testing';

const CLUSTER = 65_536;
const L2_ENTRIES = CLUSTER / 8;
const REFCOUNTS = CLUSTER / 2;
const COPIED = 0x8000_0000;

/** Every cluster of `size` bytes is mapped, in random order, from one seed. */
export function writeRandomOrder(path: string, size: number): void {
  const clusters = Math.ceil(size / CLUSTER);
  const tables = Math.ceil(clusters / L2_ENTRIES);
  const l1Clusters = Math.ceil(tables / L2_ENTRIES);
  const blocks = Math.ceil((2 + l1Clusters + tables + clusters + 1) / (REFCOUNTS - 1));
  const blocksAt = 2 + l1Clusters;
  const tablesAt = blocksAt + blocks;
  const dataAt = tablesAt + tables;
  const total = dataAt + clusters;
  const file = openSync(path, 'w');
  const put = (bytes: Uint8Array, cluster: number): void => {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(file, bytes, done, bytes.length - done, cluster * CLUSTER + done);
    }
  };
  try {
    ftruncateSync(file, total * CLUSTER);
    put(header({ size, tables, l1: 2 }), 0);
    put(entries(blocks, 0, (index) => blocksAt + index), 1);
    put(entries(tables, COPIED, (index) => tablesAt + index), 2);
    const counts = Buffer.alloc(total * 2);
    for (let at = 1; at < counts.length; at += 2) counts[at] = 1;
    put(counts, blocksAt);
    const order = shuffled(clusters);
    put(entries(clusters, COPIED, (index) => dataAt + (order[index] ?? 0)), tablesAt);
  } finally {
    closeSync(file);
  }
}

/** Version 3; the refcount table is cluster 1. */
function header({ size, tables, l1 }: { size: number; tables: number; l1: number }): Buffer {
  const bytes = Buffer.alloc(112);
  bytes.writeUInt32BE(0x5146_49fb, 0);
  bytes.writeUInt32BE(3, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(BigInt(size), 24);
  bytes.writeUInt32BE(tables, 36);
  bytes.writeBigUInt64BE(BigInt(l1 * CLUSTER), 40);
  bytes.writeBigUInt64BE(BigInt(CLUSTER), 48);
  bytes.writeUInt32BE(1, 56);
  bytes.writeUInt32BE(4, 96);
  bytes.writeUInt32BE(104, 100);
  return bytes;
}

function entries(count: number, flags: number, clusterOf: (index: number) => number): Buffer {
  const bytes = Buffer.alloc(count * 8);
  for (let index = 0; index < count; index += 1) {
    const offset = clusterOf(index) * CLUSTER;
    bytes.writeUInt32BE(flags + Math.floor(offset / 2 ** 32), index * 8);
    bytes.writeUInt32BE(offset % 2 ** 32, index * 8 + 4);
  }
  return bytes;
}

function shuffled(count: number): Uint32Array {
  const random = new SeededRandom(1);
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  for (let index = count - 1; index > 0; index -= 1) {
    const other = random.below(index + 1);
    const kept = order[index] ?? 0;
    order[index] = order[other] ?? 0;
    order[other] = kept;
  }
  return order;
}
