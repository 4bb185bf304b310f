// SPDX-License-Identifier: Apache-2.0
// The filter `compress`: every write becomes one of compressed clusters.
//
// Requests are aligned to the clusters of the format below, so a small write reads the cluster and
// writes it whole. Zeroes and discards pass: the format says them better without data.

import { BlockError } from '../../../base/index.js';
import type { Eventually } from '../../../base/index.js';
import { ChildRole, cutRequest, defineDriver, RequestFlag } from '../../../block/index.js';
import type { Child, DriverNode, NodeLimits, Request } from '../../../block/index.js';
import type { CompressOptions } from './options.js';

export const compress = defineDriver<CompressOptions>({
  name: 'compress',
  kind: 'filter',
  children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  supports: {
    read: 'native',
    write: 'native',
    writeZeroes: 'native',
    discard: 'native',
    flush: 'pass',
    blockStatus: 'pass',
    truncate: 'pass',
    planExtents: 'pass',
    reserve: 'none',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  open(context) {
    const file = context.child('file');
    const { driver, info } = file.node;
    if (driver.supports.compressedWrite === 'none') {
      throw new BlockError(
        'unsupported',
        `Compression is not supported for underlying format: ${driver.name}`,
      );
    }
    if (info.encrypted === true) {
      const text = 'Compression and encryption not supported at the same time';
      throw new BlockError('unsupported', text);
    }
    return Promise.resolve(new CompressNode(file));
  },
});

class CompressNode implements DriverNode {
  readonly #file: Child;

  constructor(file: Child) {
    this.#file = file;
  }

  get length(): number {
    return this.#file.node.length;
  }

  get limits(): NodeLimits {
    const { limits, info } = this.#file.node;
    return {
      ...limits,
      requestAlignment: Math.max(limits.requestAlignment, info.clusterSize ?? 1),
    };
  }

  read(request: Request): Eventually<void> {
    const inside = cutRequest(request, this.length);
    request.buffer?.fill(0, inside?.length ?? 0);
    return inside === null ? undefined : this.#file.node.read(inside);
  }

  write(request: Request): Eventually<void> {
    const inside = cutRequest(request, this.length);
    if (inside === null) return undefined;
    const flags = inside.flags | RequestFlag.compressed;
    return this.#file.node.write({ ...inside, flags });
  }

  writeZeroes(request: Request): Eventually<void> {
    const inside = cutRequest(request, this.length);
    return inside === null ? undefined : this.#file.node.writeZeroes(inside);
  }

  discard(request: Request): Eventually<void> {
    return this.#file.node.discard(request);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
