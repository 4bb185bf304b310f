// SPDX-License-Identifier: Apache-2.0
// The Nth call of the host fails, for every N that a run reaches: the request (or a later flush)
// reports it, nothing else is lost, later requests work, and the image has no errors but leaks.
import { describe, expect, it } from 'vitest';
import { BlockError } from '../../src/base/index.js';
import { discardRequest, RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import type { HostFault } from '../../src/host/index.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const CLUSTER = 1024;
const SIZE = 300 * CLUSTER;

type Operation = HostFault['operation'];

/** What the image must read as; a failed request leaves its range undecided. */
class Expected {
  readonly bytes = new Uint8Array(SIZE);
  readonly undecided = new Uint8Array(SIZE);
  failures = 0;

  async run(range: { offset: number; length: number }, fill: number, act: () => unknown) {
    const { offset, length } = range;
    try {
      await act();
      this.bytes.fill(fill, offset, offset + length);
      this.undecided.fill(0, offset, offset + length);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.failures += 1;
      this.undecided.fill(1, offset, offset + length);
    }
  }

  compare(seen: Uint8Array): void {
    for (let at = 0; at < SIZE; at += 1) {
      if (this.undecided[at] === 0 && seen[at] !== this.bytes[at]) {
        expect.fail(`byte ${at} is ${seen[at]}, not ${this.bytes[at]}`);
      }
    }
  }
}

async function write(image: OpenedImage, expected: Expected, place: [number, number, number]) {
  const [offset, length, fill] = place;
  const data = new Uint8Array(length).fill(fill);
  await expected.run({ offset, length }, fill, () => image.node.write(writeRequest(offset, data)));
}

async function flush(image: OpenedImage, expected: Expected): Promise<void> {
  await expected.run({ offset: 0, length: 0 }, 0, () => image.node.flush());
}

async function workload(image: OpenedImage, expected: Expected): Promise<void> {
  const { node } = image;
  await write(image, expected, [100, 5000, 1]);
  await write(image, expected, [20 * CLUSTER, 30 * CLUSTER, 2]);
  await flush(image, expected);
  const compressed = new Uint8Array(4 * CLUSTER).fill(3);
  await expected.run({ offset: 60 * CLUSTER, length: 4 * CLUSTER }, 3, () =>
    node.write(writeRequest(60 * CLUSTER, compressed, RequestFlag.compressed)),
  );
  await expected.run({ offset: 20 * CLUSTER, length: 9 * CLUSTER }, 0, () =>
    node.discard(discardRequest(20 * CLUSTER, 9 * CLUSTER)),
  );
  await flush(image, expected);
  await write(image, expected, [22 * CLUSTER + 7, 4 * CLUSTER, 4]);
  await expected.run({ offset: 31 * CLUSTER - 9, length: 6 * CLUSTER }, 0, () =>
    node.writeZeroes(zeroRequest(31 * CLUSTER - 9, 6 * CLUSTER, RequestFlag.mayUnmap)),
  );
  await write(image, expected, [200 * CLUSTER, 90 * CLUSTER, 5]);
  await flush(image, expected);
}

interface Outcome {
  readonly expected: Expected;
  readonly reached: boolean;
}

async function runWith(fault: HostFault | null, seed: number | null): Promise<Outcome> {
  const host = new MemoryHost(seed === null ? {} : { seed });
  await createOn(host, '/image', {
    size: SIZE,
    'cluster-size': CLUSTER,
    'refcount-bits': 64,
  });
  const expected = new Expected();
  const backing = new Uint8Array(50 * CLUSTER).fill(7);
  expected.bytes.set(backing);
  const image = await openOn(host, '/image', backingNode(backing));
  if (fault !== null) host.faults.add(fault);
  await workload(image, expected);
  const reached = expected.failures > 0;
  host.faults.clear();
  if (fault?.operation !== 'sync') {
    await write(image, expected, [5 * CLUSTER + 1, 3000, 6]);
    const seen = await image.read(0, SIZE);
    expected.compare(seen);
    await image.node.close();
    const result = await checkOn(host, '/image');
    expect(result, result.messages.join('; ')).toMatchObject({ corruptions: 0, checkErrors: 0 });
    const again = await openOn(host, '/image', backingNode(backing));
    expect(Buffer.compare(await again.read(0, SIZE), seen)).toBe(0);
  } else {
    const result = await checkOn(host, '/image');
    expect(result, result.messages.join('; ')).toMatchObject({ corruptions: 0, checkErrors: 0 });
  }
  return { expected, reached };
}

describe('qcow2 when the host fails', () => {
  it('has a workload that succeeds without faults', async () => {
    const { expected } = await runWith(null, null);
    expect(expected.failures).toBe(0);
    expect(expected.undecided.every((byte) => byte === 0)).toBe(true);
  });

  for (const operation of ['write', 'read', 'sync'] as const satisfies readonly Operation[]) {
    for (const errno of ['EIO', 'ENOSPC']) {
      it(`survives ${errno} of any single ${operation}`, async () => {
        let reachedOnce = false;
        for (let nth = 1; ; nth += 1) {
          const inline = await runWith({ operation, nth, errno }, null);
          await runWith({ operation, nth, errno }, nth);
          reachedOnce ||= inline.reached;
          if (!inline.reached) break;
        }
        // Every table is cached in this run, so that no read may be left to fail.
        if (operation !== 'read') expect(reachedOnce).toBe(true);
      });
    }
  }

  it('survives a disk that stays full from any write on', async () => {
    for (let nth = 1; ; nth += 1) {
      const fault = { operation: 'write', nth, errno: 'ENOSPC', lasting: true } as const;
      const outcome = await runWith(fault, nth);
      if (!outcome.reached) break;
    }
  });

  it('a failed discard of the file is no failure of the guest', async () => {
    const { expected } = await runWith(
      { operation: 'discard', nth: 1, errno: 'EIO', lasting: true },
      null,
    );
    expect(expected.failures).toBe(0);
  });
});
