// SPDX-License-Identifier: Apache-2.0
// Copying through the nodes: read() and write() in bounded buffers, zeroes kept as zeroes.

import { COPY_LIMITS, settle, toBlockError } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import type { Node } from '../node.js';
import { readRequest, RequestFlag, writeRequest, zeroRequest } from '../request.js';
import { readsFrom } from './chain.js';
import type { CopyFailure, CopySpec } from './engine/index.js';
import type { Span } from './lane-plan.js';
import { zeroRanges } from './lane-task.js';

/** Same result as a batch of lanes; the range is cut into buffers of bounded size. */
export async function copyThroughGraph(spec: CopySpec, span: Span): Promise<CopyFailure | null> {
  const step = Math.max(COPY_LIMITS.batchMinBytes, spec.unit);
  const buffer = new Uint8Array(Math.min(step, span.length));
  for (let position = 0; position < span.length; position += step) {
    const piece = buffer.subarray(0, Math.min(step, span.length - position));
    const failure = await copyPiece(spec, span.offset + position, piece);
    if (failure !== null) return failure;
  }
  return null;
}

async function copyPiece(
  spec: CopySpec,
  offset: number,
  buffer: Uint8Array,
): Promise<CopyFailure | null> {
  try {
    const read = readView(spec.source.node, offset, buffer);
    if (read instanceof Promise) await read;
  } catch (error) {
    return { side: 'source', error: toBlockError(error) };
  }
  try {
    await writePiece(spec, offset, buffer);
  } catch (error) {
    return { side: 'target', error: toBlockError(error) };
  }
  return null;
}

/** Past the end of a shorter source there are zeroes. */
export function readView(node: Node, offset: number, buffer: Uint8Array): Eventually<void> {
  const inside = Math.max(0, Math.min(buffer.length, node.length - offset));
  buffer.fill(0, inside);
  if (inside === 0) return undefined;
  return node.read(readRequest(offset, buffer.subarray(0, inside)));
}

/**
 * A target that reads from the source where nothing was copied yet may be read meanwhile: a write
 * then waits for the reads in flight, which would see what a guest writes to the source after it.
 */
export function turnFlag(spec: Pick<CopySpec, 'source' | 'target'>): number {
  const reads = readsFrom(spec.target.node, spec.source.node);
  return reads ? RequestFlag.serialising : RequestFlag.none;
}

/** How zeroes are written to the target. */
export function zeroFlags(spec: Pick<CopySpec, 'source' | 'target' | 'unmap'>): number {
  const unmap = spec.unmap === false ? RequestFlag.none : RequestFlag.mayUnmap;
  return unmap | turnFlag(spec);
}

async function writePiece(spec: CopySpec, offset: number, buffer: Uint8Array): Promise<void> {
  const target = spec.target.node;
  const turn = turnFlag(spec);
  const compress = spec.compress === true;
  const granularity = compress ? spec.unit : spec.zeroGranularity;
  const zeroes = granularity > 0 ? zeroRanges(buffer, granularity) : [];
  let position = 0;
  for (let index = 0; index <= zeroes.length; index += 2) {
    const end = zeroes[index] ?? buffer.length;
    const length = zeroes[index + 1] ?? 0;
    if (end > position) {
      const data = buffer.subarray(position, end);
      if (compress) await writeCompressed(target, { offset: offset + position, data, spec });
      else await target.write(writeRequest(offset + position, data, turn));
    }
    if (length > 0 && spec.targetIsZero !== true) {
      await target.writeZeroes(zeroRequest(offset + end, length, zeroFlags(spec)));
    }
    position = end + length;
  }
}

/** One request for each cluster: that is the unit of compression. */
async function writeCompressed(
  target: Node,
  write: { readonly offset: number; readonly data: Uint8Array; readonly spec: CopySpec },
): Promise<void> {
  const { unit } = write.spec;
  for (let position = 0; position < write.data.length; position += unit) {
    const piece = write.data.subarray(position, Math.min(position + unit, write.data.length));
    const flags = RequestFlag.compressed | turnFlag(write.spec);
    const request = writeRequest(write.offset + position, piece, flags);
    await settle(target.write(request), () => undefined);
  }
}
