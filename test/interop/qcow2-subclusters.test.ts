// SPDX-License-Identifier: Apache-2.0
// Extended L2 entries beside the real tools: the same requests leave the same subclusters allocated
// and zero, and the images read the same and check clean on both sides.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { discardRequest, RequestFlag, writeRequest, zeroRequest } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkBytes } from '../helpers/qcow2-check.js';
import { peer } from '../helpers/peers.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';
import { forEachSeed } from '../helpers/seeds.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const SEEDS = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? 8 : 150;

type Kind = 'write' | 'zero' | 'unmap' | 'discard' | 'compress';

interface Operation {
  readonly kind: Kind;
  readonly offset: number;
  readonly length: number;
  readonly fill: number;
}

interface Case {
  readonly clusterSize: number;
  readonly size: number;
  readonly preallocation: 'off' | 'metadata';
  readonly backing: Uint8Array | null;
  readonly operations: readonly Operation[];
}

function caseOf(random: SeededRandom): Case {
  const clusterSize = random.chance(0.7) ? 16_384 : 65_536;
  const size = clusterSize * (3 + random.below(12)) + 512 * random.below(32);
  const backing = random.chance(0.6)
    ? new Uint8Array(512 * (1 + random.below(Math.floor((size * 1.2) / 512))))
    : null;
  if (backing !== null) random.fill(backing);
  // A part of a compressed cluster that is zeroed makes the reference write the whole request.
  const compresses = random.chance(0.3);
  const operations = Array.from({ length: 1 + random.below(13) }, () =>
    operationOf(random, { clusterSize, size, compresses }),
  );
  const preallocation = random.chance(0.25) ? 'metadata' : 'off';
  return { clusterSize, size, preallocation, backing, operations };
}

function operationOf(
  random: SeededRandom,
  place: { readonly clusterSize: number; readonly size: number; readonly compresses: boolean },
): Operation {
  const { clusterSize, size } = place;
  const fill = 1 + random.below(255);
  if (place.compresses && random.chance(0.3)) {
    const offset = random.below(Math.ceil(size / clusterSize)) * clusterSize;
    return { kind: 'compress', offset, length: Math.min(clusterSize, size - offset), fill };
  }
  const kinds: Kind[] = ['write', 'write', 'zero', 'zero', 'unmap', 'discard'];
  const kind = kinds[random.below(kinds.length)] ?? 'write';
  const unit = [1, 512, clusterSize / 32, clusterSize][random.below(4)] ?? 1;
  const offset = Math.floor(random.below(size) / unit) * unit;
  const length = unit * (1 + random.below(Math.ceil((3 * clusterSize) / unit)));
  const rest = size - offset;
  return { kind, offset, length: random.chance(0.15) ? rest : Math.min(length, rest), fill };
}

function commandOf({ kind, offset, length, fill }: Operation): string {
  const words: Record<Kind, string> = {
    write: `write -P ${fill}`,
    zero: 'write -z',
    unmap: 'write -zu',
    discard: 'discard',
    compress: `write -c -P ${fill}`,
  };
  return `${words[kind]} ${offset} ${length}`;
}

/** As requests of zeroes come to a node: cut where its units begin and end. */
function* cut(offset: number, length: number, unit: number): Generator<[number, number]> {
  const end = offset + length;
  const first = Math.min(end, Math.ceil(offset / unit) * unit);
  const last = Math.max(first, Math.floor(end / unit) * unit);
  const parts: [number, number][] = [[offset, first], [first, last], [last, end]];
  for (const [from, to] of parts) if (to > from) yield [from, to - from];
}

async function apply({ node }: OpenedImage, operation: Operation): Promise<void> {
  const { kind, offset, length, fill } = operation;
  const data = new Uint8Array(length).fill(fill);
  if (kind === 'write') await node.write(writeRequest(offset, data));
  else if (kind === 'discard') await node.discard(discardRequest(offset, length));
  else if (kind === 'compress') {
    await node.write(writeRequest(offset, data, RequestFlag.compressed));
  } else {
    const flags = kind === 'unmap' ? RequestFlag.mayUnmap : 0;
    for (const part of cut(offset, length, node.limits.optimalZeroes)) {
      await node.writeZeroes(zeroRequest(...part, flags));
    }
  }
}

/** Of every guest cluster: whether it has a place, and its subcluster bitmap. */
function subclustersOf(bytes: Uint8Array): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries = 2 ** view.getUint32(20) / 16;
  const l1 = Number(view.getBigUint64(40));
  const found: string[] = [];
  for (let index = 0; index < view.getUint32(36); index += 1) {
    const table = Number(view.getBigUint64(l1 + index * 8) & 0x00ff_ffff_ffff_fe00n);
    for (let entry = 0; table !== 0 && entry < entries; entry += 1) {
      const at = table + entry * 16;
      const place = (view.getBigUint64(at) & 0x00ff_ffff_ffff_fe00n) === 0n ? 'none' : 'own';
      const bitmap = view.getBigUint64(at + 8).toString(16);
      found.push(`${index * entries + entry}: ${place} ${bitmap}`);
    }
  }
  return found;
}

describe.skipIf(qemuImg === null || qemuIo === null)('subclusters and the real tools', () => {
  const folder = mkdtempSync(join(tmpdir(), 'subclusters-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = (name: string): string => join(folder, name);
  const img = (...args: string[]): string => execFileSync(qemuImg ?? '', args).toString();

  function make(test: Case): void {
    const { clusterSize, preallocation, backing, size } = test;
    const mode = `,preallocation=${preallocation}`;
    const options = `extended_l2=on,cluster_size=${clusterSize}${mode}`;
    if (backing !== null) writeFileSync(path('back'), backing);
    const behind = backing === null ? [] : ['-b', path('back'), '-F', 'raw'];
    const words = ['-q', '-f', 'qcow2', '-o', options, ...behind];
    img('create', ...words, path('theirs'), String(size));
  }

  it('are left the same by the same requests', async () => {
    await forEachSeed(SEEDS, async (seed) => {
      const test = caseOf(new SeededRandom(seed));
      make(test);
      const host = new MemoryHost({ seed });
      host.putFile('/image', readFileSync(path('theirs')));
      const backing = test.backing === null ? null : backingNode(test.backing);
      const image = await openOn(host, '/image', backing);
      for (const operation of test.operations) await apply(image, operation);
      await image.node.close();
      const ours = host.fileContents('/image');
      writeFileSync(path('ours'), ours);

      const commands = test.operations.map(commandOf);
      const words = commands.flatMap((command) => ['-c', command]);
      const { stdout } = spawnSync(qemuIo ?? '', ['-f', 'qcow2', ...words, path('theirs')]);
      const theirs = new Uint8Array(readFileSync(path('theirs')));
      const facts = commands.join('; ');
      // The reference refuses to compress what is stored already, here it is replaced.
      const compresses = test.operations.some(({ kind }) => kind === 'compress');
      if (!compresses) {
        expect(stdout.toString(), facts).not.toContain('failed');
        expect(subclustersOf(ours), facts).toEqual(subclustersOf(theirs));
        expect(img('compare', path('ours'), path('theirs')), facts).toContain('identical');
        expect(await checkBytes(theirs), facts).toMatchObject({ corruptions: 0, leaks: 0 });
      }
      expect(img('check', path('ours')), facts).toContain('No errors were found');
      expect(await checkBytes(ours), facts).toMatchObject({ corruptions: 0, leaks: 0 });
    });
  }, 120_000);

  it('are read and gone on with by both in turn', async () => {
    const random = new SeededRandom(7);
    const size = 20 * 65_536 - 1536;
    const bytes = new Uint8Array(size);
    make({ clusterSize: 65_536, size, preallocation: 'off', backing: null, operations: [] });
    for (let turn = 0; turn < 6; turn += 1) {
      const host = new MemoryHost({ seed: turn });
      host.putFile('/image', readFileSync(path('theirs')));
      const image = await openOn(host, '/image');
      expect(Buffer.compare(await image.read(0, size), bytes)).toBe(0);
      const place = { clusterSize: 65_536, size, compresses: false };
      const two = [operationOf(random, place), operationOf(random, place)] as const;
      await apply(image, two[0]);
      await image.node.close();
      writeFileSync(path('theirs'), host.fileContents('/image'));
      const words = ['-f', 'qcow2', '-c', commandOf(two[1]), path('theirs')];
      expect(execFileSync(qemuIo ?? '', words).toString()).not.toContain('failed');
      for (const { kind, offset, length, fill } of two) {
        const whole = kind !== 'discard';
        const start = whole ? offset : Math.ceil(offset / 65_536) * 65_536;
        const end = offset + length;
        const stop = whole || end === size ? end : Math.floor(end / 65_536) * 65_536;
        if (stop > start) bytes.fill(kind === 'write' ? fill : 0, start, stop);
      }
    }
    expect(img('check', path('theirs'))).toContain('No errors were found');
  });
});
