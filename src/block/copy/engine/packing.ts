// SPDX-License-Identifier: Apache-2.0
// Copying into compressed clusters: lanes compress a batch into shared memory, and what they made
// is written in guest order, batch after batch. Where the target cannot take it so, the bytes go
// through the nodes.

import { assert, toBlockError } from '../../../base/index.js';
import type { ClusterCodec } from '../../../codec/index.js';
import { writeRequest } from '../../request.js';
import { copyThroughGraph } from '../graph-copy.js';
import type { LaneExecutor } from '../lane-executor.js';
import { cutParts, FileTable, laneParts } from '../lane-plan.js';
import type { PlannedRange, Span } from '../lane-plan.js';
import type { LaneResult, LaneStep } from '../lane-task.js';
import { eachSpan, failureOf } from './spec.js';
import type { CopyFailure, CopySpec } from './spec.js';

export interface PackingWork {
  readonly lanes: LaneExecutor;
  /** Set to 1 when the lanes are to stop. */
  readonly cancel: Int32Array;
  /** In whose name the lanes work. */
  readonly owner: object;
  zero(offset: number, length: number): Promise<CopyFailure | null>;
}

export class Packing {
  readonly #spec: CopySpec;
  readonly #work: PackingWork;
  readonly #freeSlabs: SharedArrayBuffer[] = [];

  constructor(spec: CopySpec, work: PackingWork) {
    this.#spec = spec;
    this.#work = work;
  }

  /** One range after another; `earlier` ends when all before them are written. */
  async copy(
    ranges: readonly PlannedRange[],
    earlier: Promise<void>,
  ): Promise<CopyFailure | null> {
    const packs = this.#spec.target.node.driverNode.writeDeflated !== undefined;
    if (packs) return eachSpan(ranges, (range) => this.#packRange(range, earlier));
    await earlier;
    return eachSpan(ranges, (range) => copyThroughGraph(this.#spec, range));
  }

  async #packRange(range: PlannedRange, earlier: Promise<void>): Promise<CopyFailure | null> {
    const { lanes, cancel, owner } = this.#work;
    const { unit } = this.#spec;
    const { clusterCodec: codec = 'deflate' } = this.#spec.target.node.driverNode;
    const table = new FileTable();
    const steps: LaneStep[] = [];
    for (let at = range.offset; at < range.offset + range.length; at += unit) {
      steps.push(compressStep(range, at, { unit, table, index: steps.length, codec }));
    }
    const slab = this.#takeSlab(steps.length * unit);
    const results = await lanes.run(
      { task: { steps, slab, cancel, ciphers: table.ciphers }, files: table.files },
      owner,
    );
    await earlier;
    try {
      return await this.#pack({ span: range, slab, results });
    } catch (error) {
      return { side: 'target', error: toBlockError(error) };
    } finally {
      this.#freeSlabs.push(slab);
    }
  }

  /** Used again, for shared memory is given back late: not the collector's heap, but the host's. */
  #takeSlab(bytes: number): SharedArrayBuffer {
    const slab = this.#freeSlabs.pop();
    return slab !== undefined && slab.byteLength >= bytes ? slab : new SharedArrayBuffer(bytes);
  }

  /** Writes the clusters of a batch in guest order, compressed where that made them smaller. */
  async #pack(batch: {
    readonly span: Span;
    readonly slab: SharedArrayBuffer;
    readonly results: readonly LaneResult[];
  }): Promise<CopyFailure | null> {
    const { unit } = this.#spec;
    for (const [index, result] of batch.results.entries()) {
      const offset = batch.span.offset + index * unit;
      const length = Math.min(unit, batch.span.offset + batch.span.length - offset);
      if (result.outcome === 'zero') {
        const failure = await this.#work.zero(offset, length);
        if (failure !== null) return failure;
        continue;
      }
      if (result.outcome !== 'written') return failureOf(result.failure, offset);
      const bytes = new Uint8Array(batch.slab, index * unit, result.bytes);
      if (result.deflated) await this.#packCluster(offset, length, bytes);
      else await this.#spec.target.node.write(writeRequest(offset, bytes.subarray(0, length)));
    }
    return null;
  }

  async #packCluster(offset: number, length: number, payload: Uint8Array): Promise<void> {
    const target = this.#spec.target.node;
    const leave = target.enterBatch(offset, length, true);
    try {
      await target.driverNode.writeDeflated?.(offset, payload);
    } finally {
      leave();
    }
  }
}

function compressStep(
  range: PlannedRange,
  offset: number,
  place: {
    readonly unit: number;
    readonly table: FileTable;
    readonly index: number;
    readonly codec: ClusterCodec;
  },
): LaneStep {
  const { unit } = place;
  const length = Math.min(unit, range.offset + range.length - offset);
  const parts = laneParts(cutParts(range, offset, length), place.table);
  assert(length > 0, `a cluster at ${offset} lies in the range`);
  return {
    // A compressed cluster is always a whole one; past the end of the image it is zero.
    parts: length < unit ? [...parts, { kind: 'zero', length: unit - length }] : parts,
    length: unit,
    target: { kind: 'slab', offset: place.index * unit },
    zeroGranularity: unit,
    skipZeroes: false,
    deflate: true,
    codec: place.codec,
  };
}
