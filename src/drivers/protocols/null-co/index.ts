// SPDX-License-Identifier: Apache-2.0
// Drivers `null-co` and `null-aio`: take every write and give nothing back, after a set latency or
// at once; null-aio never within the caller's turn.
//
// Reads leave the caller's buffer as it is unless read-zeroes is on.

import { BlockError, MAX_OFFSET, type Eventually } from '../../../base/index.js';
import {
  defineDriver,
  type BlockStatus,
  type Driver,
  type DriverNode,
  type Extent,
  type OpenContext,
  type Request,
} from '../../../block/index.js';
import type { NullOptions } from './options.js';

const DEFAULT_SIZE = 2 ** 30;
const SECTOR_BYTES = 512;

class NullNode implements DriverNode {
  readonly length: number;
  readonly limits = { requestAlignment: 1, maxTransfer: 0, optimalZeroes: 0, optimalDiscard: 0 };
  readonly #readZeroes: boolean;
  readonly #latencyMs: number;
  /** Even without a latency requests end after the caller's turn. */
  readonly #later: boolean;
  readonly #context: OpenContext;

  constructor(context: OpenContext, options: NullOptions) {
    const size = options.size ?? DEFAULT_SIZE;
    if (!Number.isSafeInteger(size) || size < 0 || size > MAX_OFFSET - SECTOR_BYTES) {
      const { name } = context.node.driver;
      throw new BlockError('invalid-option', `size ${size} of driver '${name}' is out of range`);
    }
    this.length = Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES;
    this.#readZeroes = options['read-zeroes'] ?? false;
    this.#latencyMs = (options['latency-ns'] ?? 0) / 1e6;
    this.#later = context.node.driver.name === 'null-aio';
    this.#context = context;
  }

  read(request: Request): Eventually<void> {
    if (this.#readZeroes) request.buffer?.fill(0);
    return this.#delay();
  }

  write(_request: Request): Eventually<void> {
    return this.#delay();
  }

  writeZeroes(_request: Request): Eventually<void> {
    return this.#delay();
  }

  discard(_request: Request): Eventually<void> {
    return this.#delay();
  }

  flush(): Eventually<void> {
    return this.#delay();
  }

  blockStatus(_offset: number, length: number): BlockStatus {
    const zero = this.#readZeroes;
    return { length, allocated: true, data: !zero, zero, compressed: false };
  }

  planExtents(_offset: number, length: number): readonly Extent[] | null {
    return this.#readZeroes ? [{ kind: 'zero', length }] : null;
  }

  /** Only flags change, and those are not its concern. */
  reopen(): Promise<DriverNode> {
    return Promise.resolve(this);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #delay(): Eventually<void> {
    if (this.#latencyMs === 0) return this.#later ? Promise.resolve() : undefined;
    const { clock } = this.#context.host;
    return new Promise<void>((resolve) => void clock.after(this.#latencyMs, resolve));
  }
}

export const nullDriver = nullDriverNamed('null-co');
export const nullAioDriver = nullDriverNamed('null-aio');

function nullDriverNamed(name: 'null-co' | 'null-aio'): Driver<NullOptions> {
  return defineDriver<NullOptions>({
    name,
    kind: 'protocol',
    supports: {
      read: 'native',
      write: 'native',
      writeZeroes: 'native',
      discard: 'native',
      flush: 'native',
      blockStatus: 'native',
      truncate: 'none',
      planExtents: 'native',
      reserve: 'none',
      compressedWrite: 'none',
      changeBacking: 'none',
      check: 'none',
    },
    children: {},
    reopenOptions: [],
    strongOptions: ['size', 'read-zeroes'],
    plainFilename: `${name}://`,
    open: (context, options) => Promise.resolve(new NullNode(context, options)),
  });
}
