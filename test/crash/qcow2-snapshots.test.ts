// SPDX-License-Identifier: Apache-2.0
// The power is cut at every single write of a run of guest writes and snapshots, with several
// subsets of what was not synced surviving. Whatever is left checks without an error, a snapshot
// operation leaks nothing, every snapshot shows what it showed, and the image is what it was
// before or after the operation.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import {
  discardRequest,
  RequestFlag,
  writeRequest,
  zeroRequest,
} from '../../src/block/index.js';
import { CrashDisk, MemoryHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { backingNode, failureOf, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const SECTOR = 512;
const DATE = { dateSeconds: 1, dateNanoseconds: 2, vmClockSeconds: 3, vmClockNanoseconds: 4 };
const SUBSETS = 2;

interface Setting {
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly version: 2 | 3;
  readonly backing: boolean;
  /** Extended L2 entries, in clusters of 16 KiB. */
  readonly extended?: boolean;
  readonly sectors: number;
  readonly seed: number;
}

type Kind = 'write' | 'zero' | 'discard' | 'compress' | 'create' | 'remove' | 'apply' | 'grow';

interface Operation {
  readonly kind: Kind;
  readonly at: number;
  readonly span: number;
}

/** What the image and each of its snapshots hold, by one tag for each sector. */
interface State {
  readonly active: readonly number[];
  readonly snapshots: readonly { readonly name: string; readonly tags: readonly number[] }[];
}

class Run {
  readonly disk: CrashDisk;
  image!: OpenedImage;
  survivors: MemoryHost[] = [];
  state: State;
  #tag = 1000;
  #names = 0;
  /** Sectors of each snapshot. */
  readonly #sizes = new Map<string, number>();
  readonly #random: SeededRandom;
  readonly #backing: readonly number[];

  constructor(readonly setting: Setting) {
    this.disk = new CrashDisk({ seed: setting.seed });
    this.#random = new SeededRandom(setting.seed);
    const covered = setting.backing ? Math.floor(setting.sectors * 0.7) : 0;
    this.#backing = Array.from({ length: covered }, (_, sector) => sector + 1);
    const active = Array.from({ length: setting.sectors }, (_, at) => this.#backing[at] ?? 0);
    this.state = { active, snapshots: [] };
  }

  async start(): Promise<void> {
    const { version, refcountOrder, clusterBits, sectors } = this.setting;
    await createOn(this.disk, '/image', {
      size: sectors * SECTOR,
      version: version === 2 ? 'v2' : 'v3',
      'cluster-size': 2 ** clusterBits,
      'refcount-bits': 2 ** refcountOrder,
      ...(this.setting.extended === true && { 'extended-l2': true }),
    } as never);
    this.image = await this.open(this.disk);
    this.disk.onWrite = () => {
      this.survivors.push(this.disk.durable());
      for (let subset = 1; subset < SUBSETS; subset += 1) {
        this.survivors.push(this.disk.afterPowerLoss(this.#random));
      }
    };
  }

  open(host: MemoryHost): Promise<OpenedImage> {
    const backing = this.#backing.length === 0 ? null : backingNode(filled(this.#backing));
    return openOn(host, '/image', backing);
  }

  /** Gives the state that the image has when the operation ended. */
  async apply(operation: Operation): Promise<State> {
    const { node } = this.image;
    const { active, snapshots } = this.state;
    const picked = snapshots[Math.floor(operation.at * snapshots.length)];
    const all = node.internalSnapshots;
    const key = (): { id: string; name: string } =>
      all.list().find(({ name }) => name === picked?.name) ?? { id: '', name: '' };
    switch (operation.kind) {
      case 'create': {
        const name = `s${(this.#names += 1)}`;
        this.#sizes.set(name, active.length);
        try {
          await all.create({ name, ...DATE });
        } catch (error) {
          expect(String(error)).toContain('too many references');
          return this.state;
        }
        return { active, snapshots: [...snapshots, { name, tags: active }] };
      }
      case 'remove':
        if (picked === undefined) return this.state;
        await all.remove(key());
        return { active, snapshots: snapshots.filter((each) => each !== picked) };
      case 'apply':
        if (picked === undefined) return this.state;
        await all.apply(key());
        return { active: picked.tags, snapshots };
      case 'grow': {
        if (this.setting.version === 2 || active.length > this.setting.sectors * 3) {
          return this.state;
        }
        const more = 1 + Math.floor(operation.span * 40);
        const size = (active.length + more) * SECTOR;
        await node.truncate(size, { exact: true, preallocation: 'off' });
        return { active: [...active, ...Array.from({ length: more }, () => 0)], snapshots };
      }
      default:
        return { active: await this.#write(operation), snapshots };
    }
  }

  async #write({ kind, at, span }: Operation): Promise<readonly number[]> {
    const { node } = this.image;
    const active = [...this.state.active];
    const unit = kind === 'write' || kind === 'zero' ? 1 : 2 ** this.setting.clusterBits / SECTOR;
    const units = Math.ceil(active.length / unit);
    const first = Math.min(units - 1, Math.floor(at * units)) * unit;
    const end = Math.min(active.length, first + (1 + Math.floor(span * (units / 4))) * unit);
    const offset = first * SECTOR;
    const length = (end - first) * SECTOR;
    const tags = Array.from({ length: end - first }, () => (this.#tag += 1));
    if (kind === 'write') await node.write(writeRequest(offset, filled(tags)));
    else if (kind === 'compress') {
      await node.write(writeRequest(offset, filled(tags), RequestFlag.compressed));
    } else {
      tags.fill(0);
      if (kind === 'zero') await node.writeZeroes(zeroRequest(offset, length, 0));
      else if (this.#backing.length > 0 && this.setting.version === 2) return active;
      else await node.discard(discardRequest(offset, length));
    }
    await node.flush();
    active.splice(first, tags.length, ...tags);
    return active;
  }

  async verify(operation: Operation, extra?: (survivor: MemoryHost) => void): Promise<void> {
    const { kind } = operation;
    const before = this.state;
    // What guest writes left to be freed later is a leak until then.
    if (isSnapshot(kind)) await this.image.node.prepareReadOnly();
    this.survivors = [];
    const after = await this.apply(operation);
    for (const [index, survivor] of this.survivors.entries()) {
      const where = `${kind}, cut ${index}`;
      const check = await checkOn(survivor, '/image');
      expect({ ...check, messages: check.messages.slice(0, 3) }, where).toMatchObject({
        corruptions: 0,
        checkErrors: 0,
        ...(isSnapshot(kind) && { leaks: 0 }),
      });
      const found = await this.#stateOf(survivor);
      const { length } = found.active;
      const either = [before, after].map((state) => shown(state, length));
      expect(either.map(({ snapshots }) => snapshots), where).toContainEqual(found.snapshots);
      if (isSnapshot(kind)) expect(either, where).toContainEqual(found);
      else {
        found.active.forEach((tag, at) => {
          const allowed = [before.active[at] ?? 0, after.active[at] ?? 0];
          expect(allowed, `${where}, sector ${at}`).toContain(tag);
        });
      }
      extra?.(survivor);
    }
    this.state = after;
    this.survivors = [];
    const found = await this.#stateOf(this.disk.durable());
    expect(found, kind).toEqual(shown(after, after.active.length));
  }

  async #stateOf(host: MemoryHost): Promise<State> {
    const image = await this.open(host);
    const active = await tagsOf(image);
    const snapshots: { name: string; tags: readonly number[] }[] = [];
    for (const facts of image.node.internalSnapshots.list()) {
      const other = await this.open(host);
      await other.node.internalSnapshots.show(facts);
      const sectors = this.#sizes.get(facts.name) ?? 0;
      snapshots.push({ name: facts.name, tags: (await tagsOf(other)).slice(0, sectors) });
    }
    return { active, snapshots };
  }
}

function isSnapshot(kind: Kind): boolean {
  return kind === 'create' || kind === 'remove' || kind === 'apply';
}

/** An image of `length` sectors shows no more of its snapshots. */
function shown({ active, snapshots }: State, length: number): State {
  return {
    active,
    snapshots: snapshots.map(({ name, tags }) => ({ name, tags: tags.slice(0, length) })),
  };
}

function filled(tags: readonly number[]): Uint8Array {
  const data = new Uint32Array((tags.length * SECTOR) / 4);
  tags.forEach((tag, index) => data.fill(tag, (index * SECTOR) / 4, ((index + 1) * SECTOR) / 4));
  return new Uint8Array(data.buffer);
}

async function tagsOf(image: OpenedImage): Promise<number[]> {
  const bytes = await image.read(0, image.node.length);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return Array.from({ length: bytes.length / SECTOR }, (_, at) => words[(at * SECTOR) / 4] ?? -1);
}

const settings: fc.Arbitrary<Setting> = fc
  .record({
    clusterBits: fc.constantFrom(9, 10, 12),
    refcountOrder: fc.integer({ min: 1, max: 6 }),
    version: fc.constantFrom(2 as const, 3 as const, 3 as const),
    backing: fc.boolean(),
    sectors: fc.integer({ min: 30, max: 200 }),
    seed: fc.nat(),
    extended: fc.nat({ max: 3 }).map((chance) => chance === 0),
  })
  .map((setting) => ({
    ...setting,
    extended: setting.extended && setting.version === 3,
    clusterBits: setting.extended && setting.version === 3 ? 14 : setting.clusterBits,
    refcountOrder: setting.version === 2 ? 4 : setting.refcountOrder,
  }));

const operations: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom<Kind[]>(
    'write', 'write', 'zero', 'discard', 'compress', 'create', 'create', 'remove', 'apply', 'grow',
  ),
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  span: fc.double({ min: 0, max: 1, noNaN: true }),
});

async function play(
  setting: Setting,
  work: readonly Operation[],
  extra?: (survivor: MemoryHost) => void,
): Promise<void> {
  const run = new Run(setting);
  await run.start();
  for (const operation of work) {
    await run.verify(operation, extra);
  }
  await run.image.node.close();
  expect(await checkOn(run.disk, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
}

describe('qcow2 snapshots after a power cut at any write', () => {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-snapshot-cut-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('are all as they were, and the image is as before or after', async () => {
    const list = fc.array(operations, { minLength: 4, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(settings, list, (setting, work) => play(setting, work)),
      { numRuns: process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? 8 : 500 },
    );
  }, 600_000);

  const qemuImg = peer('qemu-img');
  it.skipIf(qemuImg === null)('are found free of errors by the real check', async () => {
    const random = new SeededRandom(5);
    const path = join(folder, 'cut.qcow2');
    const kinds: Kind[] = ['write', 'create', 'write', 'create', 'compress', 'apply', 'remove'];
    const setting = {
      clusterBits: 9, refcountOrder: 2, version: 3, backing: false, sectors: 128, seed: 3,
    } as const;
    const work = kinds.map((kind) => ({ kind, at: random.below(9) / 10, span: 0.6 }));
    await play(setting, work, (survivor) => {
      if (!random.chance(0.2)) return;
      writeFileSync(path, survivor.fileContents('/image'));
      const { status, stdout } = spawnSync(qemuImg ?? '', ['check', '-f', 'qcow2', path]);
      // 0 clean, 3 leaks only.
      expect([0, 3], stdout.toString()).toContain(status);
    });
  }, 120_000);
});

describe('a snapshot operation when the host fails', () => {
  const SIZE = 64 * 1024;
  const content = (fill: number): Uint8Array => new Uint8Array(SIZE).fill(fill);

  /** The image holds 2s, its snapshots `a` and `b` 1s and 2s. */
  async function prepared(host: MemoryHost): Promise<OpenedImage> {
    await createOn(host, '/image', { size: SIZE, 'cluster-size': 512 });
    const image = await openOn(host, '/image');
    for (const [name, fill] of [['a', 1], ['b', 2]] as const) {
      await image.node.write(writeRequest(0, content(fill)));
      await image.node.internalSnapshots.create({ name, ...DATE });
    }
    await image.node.prepareReadOnly();
    return image;
  }

  const acts = {
    create: (image: OpenedImage) =>
      image.node.internalSnapshots.create({ name: 'c', ...DATE }),
    remove: (image: OpenedImage) => image.node.internalSnapshots.remove({ id: '1', name: 'a' }),
    apply: (image: OpenedImage) => image.node.internalSnapshots.apply({ id: '1', name: 'a' }),
  } as const;

  for (const kind of ['create', 'remove', 'apply'] as const) {
    for (const operation of ['write', 'read', 'sync'] as const) {
      it(`leaves all as it was: ${kind}, any single ${operation}`, async () => {
        for (let nth = 1; ; nth += 1) {
          const host = new MemoryHost(nth % 2 === 0 ? { seed: nth } : {});
          const image = await prepared(host);
          const names = (): string[] =>
            image.node.internalSnapshots.list().map(({ name }) => name);
          host.faults.add({ operation, nth, errno: 'EIO' });
          const failure = await failureOf(() => acts[kind](image));
          host.faults.clear();
          if (failure === null) break;
          const where = `${kind}, ${operation} ${nth}`;
          expect(names(), where).toEqual(['a', 'b']);
          expect(Buffer.compare(await image.read(0, SIZE), content(2)), where).toBe(0);
          expect(await checkOn(host, '/image'), where).toMatchObject({
            corruptions: 0, checkErrors: 0, leaks: 0,
          });
          // A file that failed to sync takes no more writes.
          if (operation === 'sync') continue;
          await acts[kind](image);
          await image.node.write(writeRequest(1000, new Uint8Array(5000).fill(9)));
          await image.node.close();
          expect(await checkOn(host, '/image'), where).toMatchObject({ corruptions: 0, leaks: 0 });
        }
      });
    }
  }
});
