// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, readFileSync, rmSync, writeFileSync, openSync, closeSync } from 'node:fs';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../../src/base/index.js';
import { FairLanes, inProcessLanes } from '../../../src/block/copy/index.js';
import type { LaneExecutor, LanePart, LaneStep, LaneTask } from '../../../src/block/copy/index.js';
import { ThreadRunner } from '../../../src/block/copy/thread-lanes.js';
import { keyBytesOf, sharedCipherKey } from '../../../src/crypto/index.js';
import type { CipherKey, CipherPlace } from '../../../src/crypto/index.js';
import { MemoryHost, nativeAddon } from '../../../src/host/index.js';
import type { HostFile, WorkerPool } from '../../../src/host/index.js';

const BUILT = existsSync(new URL('../../../dist/block/copy/lane-worker.js', import.meta.url));
const SIZE = 256 * 1024;
const GRAIN = 4096;

/** A file of the real host, as far as lanes look at it. */
function descriptorFile(path: string, descriptor: number): HostFile {
  const file = {
    path,
    descriptor,
    alignment: 1,
    hold: () => undefined,
    release: () => undefined,
    noteForeignWrite: () => undefined,
  };
  return file as unknown as HostFile;
}

/** Data, zeroes and holes of zeroes inside data, with a deflated cluster at the end. */
function sourceBytes(seed: number): { readonly bytes: Uint8Array; readonly packed: number } {
  const random = new SeededRandom(seed);
  const bytes = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE / 2; at += GRAIN) {
    if (random.chance(0.6)) random.fill(bytes.subarray(at, at + GRAIN));
  }
  const packed = deflateRawSync(bytes.subarray(0, 65_536), { windowBits: 12 });
  const at = SIZE / 2;
  bytes.set(packed.subarray(0, SIZE - at), at);
  return { bytes, packed: Math.min(packed.length, SIZE - at) };
}

const KEYS: readonly CipherKey[] = [
  { cipher: 'aes-256', mode: 'xts', ivGenerator: 'plain64', ivHash: null } as const,
  { cipher: 'aes-192', mode: 'cbc', ivGenerator: 'essiv', ivHash: 'sha256' } as const,
  { cipher: 'aes-128', mode: 'cbc', ivGenerator: 'plain', ivHash: null } as const,
  { cipher: 'aes-128', mode: 'ecb', ivGenerator: null, ivHash: null } as const,
  { cipher: 'aes-128', mode: 'xts', ivGenerator: 'essiv', ivHash: 'sha256' } as const,
].map((spec, index) => {
  const key = new Uint8Array(keyBytesOf(spec)).map((_, at) => 7 * at + 1);
  const vectors = { first: 2 ** 32 - 7, count512: true };
  const cipher = { spec, key, sectorBytes: 512 };
  return sharedCipherKey(index % 2 === 0 ? cipher : { ...cipher, vectors });
});

function cipherAt(offset: fc.Arbitrary<number>): fc.Arbitrary<CipherPlace> {
  return fc.record({ index: fc.nat({ max: KEYS.length - 1 }), offset });
}
const wholeSector = fc
  .oneof(fc.nat(100), fc.constantFrom(2 ** 32 - 3, 2 ** 40))
  .map((sector) => sector * 512);
/** Any byte of a sector may be the first. */
const anyByte = fc.oneof(wholeSector, fc.nat(5000));

function dataPart(offset: fc.Arbitrary<number>, length: fc.Arbitrary<number>) {
  return fc.record(
    {
      kind: fc.constant('data' as const),
      length,
      file: fc.constant(0),
      // Room before it for the begin of its first sector.
      offset: fc.integer({ min: 1, max: 40 }).map((count) => count * GRAIN),
      cipher: cipherAt(offset),
    },
    { requiredKeys: ['kind', 'length', 'file', 'offset'] },
  );
}

function unwrittenPart(offset: fc.Arbitrary<number>, length: fc.Arbitrary<number>) {
  return fc.record({ kind: fc.constant('unwritten' as const), length, cipher: cipherAt(offset) });
}

const part: fc.Arbitrary<LanePart> = fc.oneof(
  dataPart(anyByte, fc.integer({ min: 1, max: 8 }).map((count) => count * GRAIN)),
  unwrittenPart(anyByte, fc.integer({ min: 1, max: 8 }).map((count) => count * 512)),
  fc.record({
    kind: fc.constant('zero' as const),
    length: fc.integer({ min: 1, max: 4 }).map((count) => count * GRAIN),
  }),
  fc.record({
    kind: fc.constant('slab' as const),
    length: fc.constant(GRAIN),
    offset: fc.nat({ max: 7 }).map((count) => count * GRAIN),
  }),
);

interface Wanted {
  readonly parts: readonly LanePart[];
  readonly zeroGranularity: number;
  readonly skipZeroes: boolean;
  readonly compressed: boolean;
  readonly hostCopies: boolean;
  readonly encrypted: CipherPlace | null;
}

const wanted: fc.Arbitrary<Wanted> = fc.record({
  parts: fc.array(part, { minLength: 1, maxLength: 4 }),
  zeroGranularity: fc.constantFrom(0, GRAIN, 65_536),
  skipZeroes: fc.boolean(),
  compressed: fc.boolean(),
  hostCopies: fc.boolean(),
  encrypted: fc.option(cipherAt(wholeSector), { nil: null }),
});

/** What the addon does itself, longer than it reads at a time. */
const plain: fc.Arbitrary<Wanted> = fc.record({
  parts: fc.array(
    fc.oneof(
      dataPart(wholeSector, fc.integer({ min: 1, max: 800 }).map((count) => count * 512)),
      unwrittenPart(wholeSector, fc.integer({ min: 1, max: 300 }).map((count) => count * 512)),
      fc.record({
        kind: fc.constant('zero' as const),
        length: fc.integer({ min: 1, max: 800 }).map((count) => count * 512),
      }),
    ),
    { minLength: 1, maxLength: 4 },
  ),
  zeroGranularity: fc.constantFrom(0, 512, GRAIN, 65_536, 524_288),
  skipZeroes: fc.constant(true),
  compressed: fc.constant(false),
  hostCopies: fc.boolean(),
  encrypted: fc.option(cipherAt(wholeSector), { nil: null }),
});

function makeSteps(wantedSteps: readonly Wanted[], packed: number): LaneStep[] {
  let offset = 0;
  return wantedSteps.map((wantedStep) => {
    const { parts, zeroGranularity, skipZeroes, compressed, hostCopies, encrypted } = wantedStep;
    const all: LanePart[] = [...parts];
    if (compressed) {
      all.push({
        kind: 'compressed',
        length: GRAIN,
        file: 0,
        offset: SIZE / 2,
        compressedLength: packed,
        inflatedLength: 65_536,
        skip: GRAIN,
      });
    }
    const length = all.reduce((sum, each) => sum + each.length, 0);
    const step: LaneStep = {
      parts: all,
      length,
      target: { kind: 'file', file: 1, offset, ...(encrypted !== null && { cipher: encrypted }) },
      zeroGranularity,
      skipZeroes,
      hostCopies: hostCopies && encrypted === null && all.every(isStoredAsIs),
      deflate: false,
    };
    offset += length;
    return step;
  });
}

/** Only that may be left to the host. */
function isStoredAsIs(each: LanePart): boolean {
  return each.kind === 'zero' || (each.kind === 'data' && each.cipher === undefined);
}

function makeTask(steps: readonly LaneStep[]): LaneTask {
  const slab = new SharedArrayBuffer(64 * 1024);
  new Uint8Array(slab).fill(7);
  return { steps, slab, ciphers: KEYS, cancel: new Int32Array(new SharedArrayBuffer(4)) };
}

describe('lanes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'lanes-'));
  const threads = new Map<string, LaneExecutor>();
  beforeAll(async () => {
    if (!BUILT) return;
    threads.set('threads', new FairLanes(ThreadRunner.start(2, 0, null), 4));
    threads.set('addon', new FairLanes(ThreadRunner.start(1, 0), 4));
    for (const lanes of threads.values()) await lanes.warmUp();
  });
  afterAll(async () => {
    for (const lanes of threads.values()) await lanes.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it.skipIf(!BUILT).each(nativeAddon() === null ? ['threads'] : ['threads', 'addon'])(
    '%s and this thread give the same bytes and the same results',
    async (way) => {
      const run = async (seed: number, wantedSteps: readonly Wanted[]): Promise<void> => {
        const { bytes, packed } = sourceBytes(seed);
        const steps = makeSteps(wantedSteps, packed);
        const host = new MemoryHost({ seed });
        host.putFile('source', bytes);
        host.putFile('target', new Uint8Array(0));
        const files = [
          await host.openFile('source', { readOnly: true }),
          await host.openFile('target', { readOnly: false }),
        ];
        const expected = await inProcessLanes(new SeededRandom(seed)).run(
          { task: makeTask(steps), files },
          {},
        );
        writeFileSync(join(folder, 'source'), bytes);
        writeFileSync(join(folder, 'target'), '');
        const real = [
          openSync(join(folder, 'source'), 'r'),
          openSync(join(folder, 'target'), 'r+'),
        ];
        const got = await threads.get(way)?.run(
          { task: makeTask(steps), files: real.map((fd) => descriptorFile('file', fd)) },
          {},
        );
        for (const fd of real) closeSync(fd);
        expect(got).toEqual(expected);
        expect(readFileSync(join(folder, 'target')).equals(host.fileContents('target'))).toBe(true);
      };
      await fc.assert(
        fc.asyncProperty(
          fc.nat(),
          fc.array(way === 'addon' ? plain : wanted, { minLength: 1, maxLength: 5 }),
          run,
        ),
        { numRuns: 25 },
      );
    },
  );

  it('deflated bytes inflate to the same, and what does not shrink stays as it is', async () => {
    const host = new MemoryHost();
    const random = new SeededRandom(1);
    const bytes = new Uint8Array(2 * 65_536).fill(3);
    random.fill(bytes.subarray(65_536));
    host.putFile('source', bytes);
    const file = await host.openFile('source', { readOnly: true });
    const slab = new SharedArrayBuffer(2 * 65_536);
    const steps = [0, 1].map((index): LaneStep => ({
      parts: [{ kind: 'data', length: 65_536, file: 0, offset: index * 65_536 }],
      length: 65_536,
      target: { kind: 'slab', offset: index * 65_536 },
      zeroGranularity: 65_536,
      skipZeroes: false,
      deflate: true,
    }));
    const task = { steps, slab, cancel: new Int32Array(new SharedArrayBuffer(4)) };
    const results = await inProcessLanes(random).run({ task, files: [file] }, {});
    expect(results.map((result) => result.deflated)).toEqual([true, false]);
    const packed = new Uint8Array(slab, 0, results[0]?.bytes ?? 0);
    expect(inflateRawSync(packed, { windowBits: 12 }).equals(bytes.subarray(0, 65_536))).toBe(true);
    expect(Buffer.from(slab, 65_536).equals(bytes.subarray(65_536))).toBe(true);
  });

  it('a failing step names its side, and the others of its batch go on', async () => {
    const host = new MemoryHost({
      faults: [{ operation: 'write', errno: 'ENOSPC', nth: 2 }],
    });
    host.putFile('source', new Uint8Array(3 * GRAIN).fill(5));
    host.putFile('target', new Uint8Array(0));
    const files = [
      await host.openFile('source', { readOnly: true }),
      await host.openFile('target', { readOnly: false }),
    ];
    const steps = [0, 1, 2].map(
      (index): LaneStep => ({
        parts: [{ kind: 'data', length: GRAIN, file: 0, offset: index * GRAIN }],
        length: GRAIN,
        target: { kind: 'file', file: 1, offset: index * GRAIN },
        zeroGranularity: 0,
        skipZeroes: false,
        deflate: false,
      }),
    );
    const results = await inProcessLanes(new SeededRandom(1)).run(
      { task: makeTask(steps), files },
      {},
    );
    expect(results.map((result) => result.outcome)).toEqual(['written', 'error', 'written']);
    expect(results[1]?.failure).toMatchObject({
      side: 'target',
      kind: 'no-space',
      errno: 'ENOSPC',
    });
  });

  it.skipIf(nativeAddon() === null)(
    'the addon names the side that failed, goes on with the others, and obeys the flag',
    async () => {
      const source = join(folder, 'addon-source');
      writeFileSync(source, new Uint8Array(GRAIN).fill(5));
      const target = join(folder, 'addon-target');
      writeFileSync(target, '');
      // One way each: what is not allowed fails with EBADF.
      const descriptors = [openSync(source, 'r'), openSync(target, 'r+'), openSync(target, 'a')];
      const step = (from: number, to: number): LaneStep => ({
        parts: [{ kind: 'data', length: GRAIN, file: from, offset: 0 }],
        length: GRAIN,
        target: { kind: 'file', file: to, offset: 0 },
        zeroGranularity: 0,
        skipZeroes: true,
        deflate: false,
      });
      const lanes = new FairLanes(ThreadRunner.start(1, 0), 1);
      const files = descriptors.map((fd) => descriptorFile('file', fd));
      const task = makeTask([step(2, 1), step(0, 0), step(0, 1)]);
      const results = await lanes.run({ task, files }, {});
      expect(results.map(({ outcome }) => outcome)).toEqual(['error', 'error', 'written']);
      expect(results.map(({ failure }) => failure?.side)).toEqual(['source', 'target', undefined]);
      expect(results[0]?.failure).toMatchObject({ kind: 'io', errno: 'EBADF' });
      Atomics.store(task.cancel, 0, 1);
      const cancelled = await lanes.run({ task, files }, {});
      expect(new Set(cancelled.map(({ outcome }) => outcome))).toEqual(new Set(['cancelled']));
      expect(readFileSync(target)).toEqual(Buffer.alloc(GRAIN, 5));
      await lanes.close();
      for (const fd of descriptors) closeSync(fd);
    },
  );

  it('a batch whose thread died is done on this thread, and so are all after it', async () => {
    const host = new MemoryHost();
    host.putFile('target', new Uint8Array(GRAIN).fill(7));
    const file = await host.openFile('target', { readOnly: false });
    Object.defineProperty(file, 'descriptor', { value: 99 });
    let asked = 0;
    const pool: WorkerPool = {
      threads: 1,
      run: async <R>(message: unknown) => {
        asked += 1;
        if ((message as { task: LaneTask }).task.steps.length > 0) throw new Error('thread ended');
        return [] as R;
      },
      warmUp: () => Promise.resolve(),
      close: () => Promise.resolve(),
    };
    const lanes = new FairLanes(new ThreadRunner(pool, 0, null), 1);
    await lanes.warmUp();
    const step: LaneStep = {
      parts: [{ kind: 'zero', length: 512 }],
      length: 512,
      target: { kind: 'file', file: 0, offset: 0 },
      zeroGranularity: 0,
      skipZeroes: false,
      deflate: false,
    };
    for (const round of [1, 2]) {
      const results = await lanes.run({ task: makeTask([step]), files: [file] }, {});
      expect(results.map(({ outcome }) => outcome), `round ${round}`).toEqual(['written']);
    }
    expect(asked).toBe(2);
    const busy = new FairLanes(new ThreadRunner(pool, undefined, null), 1);
    await busy.warmUp();
    await busy.run({ task: makeTask([step]), files: [file] }, {});
    expect(asked, 'a few bytes are not worth a message to a thread').toBe(3);
    await file.close();
    const closed = lanes.run({ task: makeTask([step]), files: [file] }, {});
    await expect(closed).rejects.toThrow();
    expect([...new Set(host.fileContents('target').subarray(0, 512))]).toEqual([0]);
  });

  it('steps not begun when the flag is set are reported as cancelled', async () => {
    const host = new MemoryHost();
    host.putFile('target', new Uint8Array(0));
    const files = [await host.openFile('target', { readOnly: false })];
    const step: LaneStep = {
      parts: [{ kind: 'zero', length: 512 }],
      length: 512,
      target: { kind: 'file', file: 0, offset: 0 },
      zeroGranularity: 0,
      skipZeroes: false,
      deflate: false,
    };
    const task = makeTask([step, step]);
    Atomics.store(task.cancel, 0, 1);
    const results = await inProcessLanes(new SeededRandom(1)).run({ task, files }, {});
    expect(results.map((result) => result.outcome)).toEqual(['cancelled', 'cancelled']);
    expect(host.fileContents('target')).toHaveLength(0);
  });

  it('owners take turns, whatever one of them has queued', async () => {
    const order: string[] = [];
    const lanes = new FairLanes(
      {
        run: async ({ task }) => {
          order.push(String(task.steps.length));
          await Promise.resolve();
          return [];
        },
        close: () => Promise.resolve(),
      },
      1,
    );
    const batch = (count: number): Parameters<LaneExecutor['run']>[0] => ({
      task: makeTask(
        Array.from({ length: count }, () => ({ target: { kind: 'slab' } }) as unknown as LaneStep),
      ),
      files: [],
    });
    const busy = {};
    const modest = {};
    await Promise.all([
      ...Array.from({ length: 4 }, () => lanes.run(batch(1), busy)),
      ...Array.from({ length: 2 }, () => lanes.run(batch(2), modest)),
    ]);
    expect(order.join('')).toBe('112121');
  });
});
