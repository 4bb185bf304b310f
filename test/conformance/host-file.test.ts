// SPDX-License-Identifier: Apache-2.0
// What every host's files must do; one line per implementation.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { AssertionFailure, BlockError, Permission } from '../../src/base/index.js';
import {
  bufferPool,
  CrashDisk,
  type Host,
  type HostFile,
  MemoryHost,
  openNativeHost,
  openNodeHost,
} from '../../src/host/index.js';

interface Implementation {
  readonly name: string;
  readonly make: () => Host | null;
  readonly onDisk: boolean;
}

/** A host under test, with files of its own. */
interface Subject {
  readonly host: Host;
  readonly newPath: () => string;
  readonly withFile: (use: (file: HostFile) => Promise<void>) => Promise<void>;
}

const later = { seed: 7, laterChance: 0.5 };

const implementations: readonly Implementation[] = [
  { name: 'native', make: () => openNativeHost(), onDisk: true },
  { name: 'node', make: () => openNodeHost({ warn: () => undefined }), onDisk: true },
  { name: 'memory', make: () => new MemoryHost(), onDisk: false },
  { name: 'memory answering later', make: () => new MemoryHost(later), onDisk: false },
  { name: 'crash disk', make: () => new CrashDisk({ seed: 11 }), onDisk: false },
];

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + seed * 17 + 1) & 0xff);
}

async function readBytes(file: HostFile, offset: number, length: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(length).fill(0xee);
  const count = await file.read(buffer, offset);
  return buffer.subarray(0, count);
}

function expectSame(actual: Uint8Array, expected: Uint8Array): void {
  expect(Buffer.compare(actual, expected)).toBe(0);
}

async function refusal(action: () => unknown): Promise<BlockError> {
  try {
    await action();
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    return error as BlockError;
  }
  throw new Error('it was not refused');
}

function transferCases({ withFile }: Subject): void {
  it('reads back what was written and zeroes between', () =>
    withFile(async (file) => {
      await file.write(pattern(1000, 1), 500);
      await file.write(pattern(300, 2), 5000);
      expect(file.size()).toBe(5300);
      expect(await readBytes(file, 500, 1000)).toEqual(pattern(1000, 1));
      expect(await readBytes(file, 0, 500)).toEqual(new Uint8Array(500));
      expect(await readBytes(file, 1500, 3500)).toEqual(new Uint8Array(3500));
    }));

  it('gives fewer bytes only at the end of the file', () =>
    withFile(async (file) => {
      await file.write(pattern(700, 3), 0);
      expect(await readBytes(file, 600, 500)).toEqual(pattern(700, 3).subarray(600));
      expect(await readBytes(file, 700, 10)).toHaveLength(0);
      expect(await readBytes(file, 9000, 10)).toHaveLength(0);
    }));

  it('reads into more than two gibibytes of memory', () =>
    withFile(async (file) => {
      await file.write(pattern(700, 3), 0);
      const huge = new Uint8Array(2 ** 31 + 4096);
      expect(await file.read(huge, 0)).toBe(700);
      expectSame(huge.subarray(0, 700), pattern(700, 3));
    }));

  it('transfers more than the inline limit, from shared memory too', () =>
    withFile(async (file) => {
      const slab = bufferPool.take();
      slab.set(pattern(slab.length, 4));
      await file.write(slab, 4096);
      slab.fill(0);
      expect(await file.read(slab, 4096)).toBe(slab.length);
      expect(Buffer.compare(slab, pattern(slab.length, 4))).toBe(0);
      bufferPool.give(slab);
    }));

  it('truncates both ways, and the new part reads zeroes', () =>
    withFile(async (file) => {
      await file.write(pattern(9000, 5), 0);
      await file.truncate(4000);
      await file.truncate(9000);
      expect(file.size()).toBe(9000);
      expect(await readBytes(file, 0, 4000)).toEqual(pattern(9000, 5).subarray(0, 4000));
      expect(await readBytes(file, 4000, 5000)).toEqual(new Uint8Array(5000));
    }));

  it.each(['falloc', 'full'] as const)('a file grown with preallocation %s reads zeroes', (mode) =>
    withFile(async (file) => {
      await file.write(pattern(777, 6), 0);
      await file.truncate(3_000_001, mode);
      expect(file.size()).toBe(3_000_001);
      expect(await readBytes(file, 0, 777)).toEqual(pattern(777, 6));
      expect(Buffer.alloc(2_999_224).compare(await readBytes(file, 777, 2_999_224))).toBe(0);
    }));
}

function rangeCases({ withFile }: Subject): void {
  it('zeroes a range, growing the file over it, or says that it cannot', () =>
    withFile(async (file) => {
      await file.write(pattern(200_000, 7), 0);
      if (!file.capabilities.writeZeroes) {
        const error = await refusal(() => file.writeZeroes(0, 4096, true));
        expect(error.kind).toBe('unsupported');
        return;
      }
      for (const [offset, length, mayUnmap] of [
        [100, 70_000, true],
        [90_000, 512, false],
        [199_000, 300_000, true],
        [600_000, 300_000, false],
      ] as const) {
        await file.writeZeroes(offset, length, mayUnmap);
        expect(Buffer.alloc(length).compare(await readBytes(file, offset, length))).toBe(0);
      }
      expect(file.size()).toBe(900_000);
      expect(await readBytes(file, 0, 100)).toEqual(pattern(200_000, 7).subarray(0, 100));
      const kept = pattern(200_000, 7).subarray(70_100, 90_000);
      expect(await readBytes(file, 70_100, 19_900)).toEqual(kept);
    }));

  it('discard keeps the size and everything outside the range', () =>
    withFile(async (file) => {
      await file.write(pattern(300_000, 8), 0);
      await file.discard(65_536, 131_072);
      await file.discard(290_000, 50_000);
      expect(file.size()).toBe(300_000);
      const before = pattern(300_000, 8);
      expectSame(await readBytes(file, 0, 65_536), before.subarray(0, 65_536));
      const inside = await readBytes(file, 65_536, 131_072);
      if (file.capabilities.discard) expect(Buffer.alloc(131_072).compare(inside)).toBe(0);
      else expectSame(inside, before.subarray(65_536, 196_608));
    }));

  it('extents cover the file without gaps, and a hole reads zeroes', () =>
    withFile(async (file) => {
      await file.write(pattern(65_536, 9), 0);
      await file.write(pattern(65_536, 9), 1_048_576);
      await file.truncate(2_097_152);
      let holes = 0;
      for (let at = 0; at < file.size(); ) {
        const extent = file.extent(at, 10_000_000);
        expect(extent.length).toBeGreaterThan(0);
        if (extent.kind === 'hole') {
          holes += extent.length;
          const bytes = await readBytes(file, at, extent.length);
          expect(bytes.every((byte) => byte === 0)).toBe(true);
        }
        at += extent.length;
        expect(at).toBeLessThanOrEqual(file.size());
      }
      expect(holes > 0).toBe(file.capabilities.extents);
      expect(file.extent(0, 512)).toEqual({ kind: 'data', length: 512 });
      expect(file.extent(2_097_152, 512).length).toBe(0);
    }));
}

function openingCases({ host, newPath }: Subject): void {
  it('refuses to change a file opened read-only', async () => {
    const path = newPath();
    await (await host.createFile(path)).close();
    const file = await host.openFile(path, { readOnly: true });
    expect(file.readOnly).toBe(true);
    for (const change of [
      () => file.write(new Uint8Array(1), 0),
      () => file.truncate(1),
      () => file.discard(0, 1),
      () => file.writeZeroes(0, 1, true),
    ]) {
      expect((await refusal(change)).kind).toBe('read-only');
    }
    await file.sync();
    await file.close();
  });

  it('creating over a file keeps its contents', async () => {
    const path = newPath();
    const first = await host.createFile(path);
    await first.write(pattern(100, 1), 0);
    await first.close();
    const second = await host.createFile(path);
    expect(await readBytes(second, 0, 100)).toEqual(pattern(100, 1));
    await second.close();
  });

  it('stat tells identity, kind and size, and null where nothing is', async () => {
    const path = newPath();
    expect(await host.stat(path)).toBeNull();
    const file = await host.createFile(path);
    await file.write(pattern(100, 1), 0);
    expect(await host.stat(path)).toMatchObject({
      identity: file.identity,
      kind: 'file',
      size: 100,
    });
    await file.close();
    await host.removeFile(path);
    expect(await host.stat(path)).toBeNull();
    expect((await refusal(() => host.removeFile(path))).kind).toBe('not-found');
  });

  it('a missing file is refused with path and reason', async () => {
    const path = newPath();
    const error = await refusal(() => host.openFile(path, { readOnly: true }));
    expect(error.kind).toBe('not-found');
    expect(error.message).toBe(`Could not open '${path}': No such file or directory`);
  });
}

function holdingCases({ host, newPath, withFile }: Subject): void {
  it('sync succeeds, and again with nothing written', () =>
    withFile(async (file) => {
      await file.write(pattern(10, 1), 0);
      await Promise.all([file.sync(), file.sync()]);
      await file.sync();
      file.noteForeignWrite();
      await file.sync();
    }));

  it('close waits for every holder and is idempotent', async () => {
    const file = await host.createFile(newPath());
    file.hold();
    file.hold();
    let closed = false;
    const closing = file.close().then(() => {
      closed = true;
    });
    file.release();
    await file.write(pattern(10, 1), 0);
    expect(closed).toBe(false);
    file.release();
    await closing;
    await file.close();
    expect(() => file.read(new Uint8Array(1), 0)).toThrow(AssertionFailure);
    expect(() => file.release()).toThrow(AssertionFailure);
  });

  it('a direct file transfers aligned requests from any memory', async () => {
    const path = newPath();
    const file = await host.createFile(path);
    await file.truncate(3 * 1024 * 1024);
    await file.close();
    let direct: HostFile;
    try {
      direct = await host.openFile(path, { readOnly: false, direct: true });
    } catch (error) {
      expect((error as BlockError).message).toContain('O_DIRECT');
      return;
    }
    expect(direct.alignment).toBeGreaterThanOrEqual(512);
    const data = pattern(2 * 1024 * 1024 + 4096, 3);
    await direct.write(data, 4096);
    expect(Buffer.compare(await readBytes(direct, 4096, data.length), data)).toBe(0);
    expect(() => direct.read(new Uint8Array(100), 0)).toThrow(AssertionFailure);
    expect(() => direct.read(new Uint8Array(4096), 1)).toThrow(AssertionFailure);
    await direct.sync();
    await direct.close();
  });
}

function lockingCases({ host, newPath }: Subject): void {
  it('two opens in one process keep each other out', async () => {
    const path = newPath();
    const writer = await host.createFile(path);
    const other = await host.openFile(path, { readOnly: true });
    writer.lock({ taken: Permission.write, unshared: Permission.write });
    const error = await refusal(() =>
      other.lock({ taken: Permission.consistentRead, unshared: Permission.write }),
    );
    expect(error.kind).toBe('locked');
    expect(error.message).toBe('Failed to get shared "write" lock');
    expect(error.context.hint).toBe(`Is another process using the image [${path}]?`);
    other.lock({ taken: Permission.consistentRead, unshared: 0 });
    await writer.close();
    other.lock({ taken: Permission.consistentRead, unshared: Permission.write });
    await other.close();
  });

  it('a refused change of locks keeps the earlier declaration', async () => {
    const path = newPath();
    const one = await host.createFile(path);
    const two = await host.openFile(path, { readOnly: false });
    one.lock({ taken: Permission.consistentRead, unshared: Permission.resize });
    two.lock({ taken: Permission.write, unshared: 0 });
    const wanted = { taken: Permission.consistentRead, unshared: Permission.write };
    expect((await refusal(() => one.lock(wanted))).message).toContain('shared "write"');
    const error = await refusal(() => two.lock({ taken: Permission.resize, unshared: 0 }));
    expect(error.message).toBe('Failed to get "resize" lock');
    one.lock({ taken: 0, unshared: 0 });
    two.lock({ taken: Permission.resize, unshared: Permission.all });
    await Promise.all([one.close(), two.close()]);
  });
}

function lawCases({ host, newPath }: Subject): void {
  it('behaves as a byte array does, whatever the order of operations', async () => {
    const limit = 40_000;
    const range = { offset: fc.nat(limit), length: fc.integer({ min: 1, max: limit }) };
    const step = fc.oneof(
      fc.record({ kind: fc.constant('write' as const), ...range, seed: fc.nat(255) }),
      fc.record({ kind: fc.constant('zero' as const), ...range, mayUnmap: fc.boolean() }),
      fc.record({ kind: fc.constant('truncate' as const), size: fc.nat(limit) }),
      fc.record({ kind: fc.constant('sync' as const) }),
    );
    const law = fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const file = await host.createFile(newPath());
      let model = new Uint8Array(0);
      const put = (offset: number, bytes: Uint8Array): void => {
        const grown = new Uint8Array(Math.max(model.length, offset + bytes.length));
        grown.set(model);
        grown.set(bytes, offset);
        model = grown;
      };
      for (const one of steps) {
        if (one.kind === 'write') {
          await file.write(pattern(one.length, one.seed), one.offset);
          put(one.offset, pattern(one.length, one.seed));
        } else if (one.kind === 'zero' && file.capabilities.writeZeroes) {
          await file.writeZeroes(one.offset, one.length, one.mayUnmap);
          put(one.offset, new Uint8Array(one.length));
        } else if (one.kind === 'truncate') {
          await file.truncate(one.size);
          const next = new Uint8Array(one.size);
          next.set(model.subarray(0, one.size));
          model = next;
        } else if (one.kind === 'sync') {
          await file.sync();
        }
      }
      expect(file.size()).toBe(model.length);
      expect(Buffer.compare(await readBytes(file, 0, limit * 2), model)).toBe(0);
      await file.close();
      await host.removeFile(file.path);
    });
    await fc.assert(law, { numRuns: 40 });
  });
}

for (const { name, make, onDisk } of implementations) {
  const host = make();
  if (host === null) {
    it(`host file: ${name}`, ({ skip }) => {
      // Switched off on purpose, or no compiler; where everything is required it must be there.
      const { REQUIRE_PEERS, BLOCKWRIGHT_NATIVE } = process.env;
      expect(REQUIRE_PEERS === '1' && BLOCKWRIGHT_NATIVE !== '0').toBe(false);
      skip('needs the native addon');
    });
    continue;
  }
  describe(`host file: ${name}`, () => {
    let folder = '/';
    let counter = 0;
    beforeAll(() => {
      if (onDisk) folder = mkdtempSync(join(tmpdir(), 'blockwright-host-'));
    });
    afterAll(() => {
      if (onDisk) rmSync(folder, { recursive: true });
    });
    const newPath = (): string => join(folder, `file-${counter++}`);
    const withFile = async (use: (file: HostFile) => Promise<void>): Promise<void> => {
      const file = await host.createFile(newPath());
      try {
        await use(file);
      } finally {
        await file.close();
      }
    };
    const subject = { host, newPath, withFile };
    transferCases(subject);
    rangeCases(subject);
    openingCases(subject);
    holdingCases(subject);
    lockingCases(subject);
    lawCases(subject);
  });
}
