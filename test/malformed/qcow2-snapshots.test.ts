// SPDX-License-Identifier: Apache-2.0
// Snapshot tables that break a rule, and snapshots whose tables cannot be: one line that says what,
// in bounded time and memory, and the image as it was.
import { describe, expect, it } from 'vitest';
import { rulesOf } from '../../src/base/index.js';
import { readRequest, writeRequest } from '../../src/block/index.js';
import { SNAPSHOT_ENTRY } from '../../src/drivers/formats/qcow2/layout.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkBytes, checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { failureOf, openOn } from '../helpers/qcow2-node.js';

const CLUSTER = 4096;

/** An image of 4-KiB clusters with some data and a snapshot of it; its bytes. */
async function imageBytes(): Promise<Uint8Array> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: 1024 * 1024, 'cluster-size': CLUSTER });
  const { node } = await openOn(host, '/image');
  await node.write(writeRequest(0, new Uint8Array(20_000).fill(7)));
  const date = { dateSeconds: 1, dateNanoseconds: 2, vmClockSeconds: 0, vmClockNanoseconds: 0 };
  await node.internalSnapshots.create({ name: 'first', ...date });
  await node.write(writeRequest(4096, new Uint8Array(5000).fill(8)));
  await node.close();
  return host.fileContents('/image');
}

interface Places {
  readonly view: DataView;
  readonly table: number;
  readonly l1: number;
}

function places(bytes: Uint8Array): Places {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const table = Number(view.getBigUint64(64));
  return { view, table, l1: Number(view.getBigUint64(table)) };
}

async function broken(change: (places: Places, bytes: Uint8Array) => void): Promise<MemoryHost> {
  const bytes = (await imageBytes()).slice();
  change(places(bytes), bytes);
  const host = new MemoryHost();
  host.putFile('/image', bytes);
  return host;
}

const key = { id: '1', name: 'first' };
const date = { dateSeconds: 1, dateNanoseconds: 2, vmClockSeconds: 0, vmClockNanoseconds: 0 };

describe('a snapshot table', () => {
  for (const { json, rule, offset, badValue } of rulesOf(SNAPSHOT_ENTRY, {
    version: 3,
    length: SNAPSHOT_ENTRY.size,
  })) {
    it(`that breaks ${rule} of ${json} is refused by name`, async () => {
      const host = await broken(({ view, table }) => view.setUint32(table + offset, badValue));
      const failure = await failureOf(() => openOn(host, '/image'));
      expect(failure?.kind).toBe('corrupt-image');
      expect(failure?.message).toContain(`${json} ${badValue}`);
    });
  }

  it('with an L1 table over everything keeps writes out and lets reads pass', async () => {
    const host = await broken(({ view, table }) => view.setUint32(table + 8, 4 * 2 ** 20));
    const { node } = await openOn(host, '/image');
    const found = new Uint8Array(20_000);
    await node.read(readRequest(0, found));
    expect([...new Set(found.subarray(4096, 9096))]).toEqual([8]);
    expect(new Set(found.subarray(9096))).toEqual(new Set([7]));
    const failure = await failureOf(async () => {
      await node.write(writeRequest(0, new Uint8Array(4096).fill(9)));
      await node.flush();
    });
    expect(failure?.message).toContain('overlaps the inactive L1 table');
    await node.close();
    const { node: again } = await openOn(host, '/image', null, { readOnly: true });
    await again.read(readRequest(0, found));
    expect(new Set(found.subarray(0, 4096))).toEqual(new Set([7]));
    await again.close();
  });

  it('that the file ends within is refused', async () => {
    const host = await broken(({ view, table }) => view.setUint16(table + 14, 0xffff));
    const failure = await failureOf(() => openOn(host, '/image'));
    expect(failure?.message).toMatch(/^Snapshot table ends too early \(offset \d+\)$/);
  });

  it('without the disk size that version 3 needs is told by check', async () => {
    const host = await broken(({ view, table }, bytes) => {
      view.setUint32(table + 36, 0);
      bytes.copyWithin(table + 40, table + 64, table + 80);
    });
    const { corruptions, messages } = await checkOn(host, '/image');
    expect({ corruptions, messages }).toEqual({
      corruptions: 1,
      messages: ['ERROR snapshot table entry 0 is incomplete'],
    });
  });
});

describe('a snapshot whose L1 table', () => {
  const cases: readonly [string, (places: Places) => void, string][] = [
    ['is not aligned', ({ view, table, l1 }) => view.setBigUint64(table, BigInt(l1 + 8)), 'offset'],
    ['is beyond the end', ({ view, table }) => view.setBigUint64(table, 2n ** 50n), 'offset'],
    ['is too large', ({ view, table }) => view.setUint32(table + 8, 0xffff_ffff), 'too large'],
    ['has reserved bits', ({ view, l1 }) => view.setUint32(l1 + 4, 0x1ff), 'L1 entry 0'],
    ['names nothing in the file', ({ view, l1 }) => view.setUint32(l1, 0x00ff_0000), 'beyond'],
  ];
  for (const [what, change, word] of cases) {
    it(`${what} is neither applied, deleted nor shown, and nothing changes`, async () => {
      const host = await broken((found) => change(found));
      const { node } = await openOn(host, '/image');
      const before = host.fileContents('/image');
      const all = node.internalSnapshots;
      for (const act of [() => all.apply(key), () => all.remove(key)]) {
        const failure = await failureOf(act);
        expect(failure?.kind).toBe('corrupt-image');
        expect(failure?.message).toContain(word);
        expect(failure?.message).not.toContain('\n');
      }
      expect(Buffer.compare(host.fileContents('/image'), before)).toBe(0);
      const check = await checkOn(host, '/image');
      expect(check.corruptions + check.leaks).toBeGreaterThan(0);
    });
  }
});

describe('snapshots by the thousand', () => {
  it('that share tables are counted once each', async () => {
    const bytes = await imageBytes();
    const { table, l1 } = places(bytes);
    const count = 65_536;
    const entry = 64 + 8;
    const size = Math.ceil((count * entry) / CLUSTER) * CLUSTER;
    const wide = new Uint8Array(bytes.length + CLUSTER + size);
    wide.set(bytes);
    const view = new DataView(wide.buffer);
    const place = Math.ceil(bytes.length / CLUSTER) * CLUSTER;
    for (let index = 0; index < count; index += 1) {
      const at = place + index * entry;
      wide.set(bytes.subarray(table, table + entry), at);
      // Overlapping parts of the same bytes.
      view.setBigUint64(at, BigInt(l1 - (index % 3) * CLUSTER));
      view.setUint32(at + 8, 1 + (index % 4) * 512);
    }
    view.setUint32(60, count);
    view.setBigUint64(64, BigInt(place));
    const check = await checkBytes(wide);
    expect(check.corruptions).toBeGreaterThan(count);
    const host = new MemoryHost();
    host.putFile('/image', wide);
    const { node } = await openOn(host, '/image');
    const failure = await failureOf(() => node.internalSnapshots.create({ name: 'x', ...date }));
    expect(failure?.message).toContain('65536 snapshots already');
  }, 30_000);

  it('are refused at the refcount that the width cannot hold, with nothing changed', async () => {
    const host = new MemoryHost();
    const options = { size: 65_536, 'cluster-size': 512, 'refcount-bits': 2 } as const;
    await createOn(host, '/image', options);
    const { node } = await openOn(host, '/image');
    await node.write(writeRequest(0, new Uint8Array(2000).fill(1)));
    for (const name of ['a', 'b']) await node.internalSnapshots.create({ name, ...date });
    const before = host.fileContents('/image');
    const failure = await failureOf(() => node.internalSnapshots.create({ name: 'c', ...date }));
    expect([failure?.kind, failure?.errno]).toEqual(['invalid-option', 'EINVAL']);
    expect(host.fileContents('/image').length).toBe(before.length);
    expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});
