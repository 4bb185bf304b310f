// SPDX-License-Identifier: Apache-2.0
// A driver over an array: every answer may be held back by `gate`, and every call is recorded.
import type { Eventually } from '../../src/base/index.js';
import { settle } from '../../src/base/index.js';
import {
  defineDriver,
  type Driver,
  type DriverNode,
  type NodeLimits,
  type Request,
} from '../../src/block/index.js';

export interface TestDriverOptions {
  readonly bytes: Uint8Array;
  readonly limits?: Partial<NodeLimits>;
  readonly gate?: (request: Request) => Eventually<void>;
  readonly writeZeroes?: 'native' | 'emulate' | 'none';
}

export interface TestDriver {
  readonly driver: Driver<never>;
  readonly calls: Request[];
  flushes: number;
}

export function testDriver(options: TestDriverOptions): TestDriver {
  const { bytes, gate } = options;
  const calls: Request[] = [];
  const perform = (request: Request): Eventually<void> => {
    calls.push(request);
    const { offset, length, buffer } = request;
    // The device looks at its bytes when the request completes, not when it begins.
    return settle(gate?.(request), () => {
      if (request.kind === 'read') buffer?.set(bytes.subarray(offset, offset + length));
      else if (buffer !== null) bytes.set(buffer, offset);
      else bytes.fill(0, offset, offset + length);
    });
  };
  const node: DriverNode = {
    length: bytes.length,
    limits: {
      requestAlignment: 1,
      maxTransfer: 0,
      optimalZeroes: 0,
      optimalDiscard: 0,
      ...options.limits,
    },
    read: perform,
    write: perform,
    writeZeroes: perform,
    discard: perform,
    flush() {
      result.flushes += 1;
    },
    close: () => Promise.resolve(),
  };
  const result: TestDriver = {
    calls,
    flushes: 0,
    driver: defineDriver({
      name: 'test',
      kind: 'protocol',
      supports: {
        read: 'native',
        write: 'native',
        writeZeroes: options.writeZeroes ?? 'native',
        discard: 'native',
        flush: 'native',
        blockStatus: 'emulate',
        truncate: 'none',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
      },
      children: {},
      open: () => Promise.resolve(node),
    }),
  };
  return result;
}
