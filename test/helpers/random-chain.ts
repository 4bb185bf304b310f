// SPDX-License-Identifier: Apache-2.0
// Backing chains of every shape made by the real tools from a seed: cluster sizes, versions,
// refcount widths, compressed clusters, holes, shorter backing files, a raw base.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../../src/base/index.js';
import { peer } from './peers.js';

const KIB = 1024;
const MIB = 1024 * KIB;

export interface ChainImage {
  readonly path: string;
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
}

export interface RandomChain {
  /** The base first. */
  readonly images: readonly ChainImage[];
  readonly top: ChainImage;
  readonly size: number;
}

export function pick<T>(random: Random, choices: readonly T[]): T {
  const chosen = choices[random.below(choices.length)];
  if (chosen === undefined) throw new Error('nothing to choose from');
  return chosen;
}

export function makeRandomChain(directory: string, random: Random): RandomChain {
  const depth = 2 + random.below(3);
  const size = pick(random, [1, 3, 8]) * MIB + pick(random, [0, 512, 64 * KIB, 1536]);
  const images: ChainImage[] = [];
  for (let index = 0; index < depth; index += 1) {
    const shorter = index === depth - 1 ? 0 : pick(random, [0, 0, 50 * KIB, MIB / 2]);
    const raw = index === 0 && random.below(4) === 0;
    const format = raw ? 'raw' : 'qcow2';
    const name = `image${index}.${format}`;
    const image: ChainImage = { path: join(directory, name), name, format };
    makeImage(image, images.at(-1), { size: size - shorter, random });
    images.push(image);
  }
  const top = images.at(-1);
  if (top === undefined) throw new Error('a chain has images');
  return { images, top, size };
}

interface ImageShape {
  readonly size: number;
  readonly random: Random;
}

function makeImage(image: ChainImage, below: ChainImage | undefined, shape: ImageShape): void {
  const { size, random } = shape;
  const clusterSize = pick(random, [512, KIB, 4 * KIB, 64 * KIB, 64 * KIB, 256 * KIB, 2 * MIB]);
  const args = ['create', '-q', '-f', image.format];
  if (image.format === 'qcow2') {
    const version = pick(random, [
      'compat=0.10',
      `compat=1.1,refcount_bits=${pick(random, [1, 2, 4, 8, 16, 32, 64])}`,
    ]);
    args.push('-o', `cluster_size=${clusterSize},${version}`);
    if (below !== undefined) args.push('-b', below.name, '-F', below.format);
  }
  run('qemu-img', [...args, image.path, String(size)]);
  const writes = randomWrites(size, random);
  if (image.format === 'qcow2' && random.below(5) < 2) {
    for (let count = 0; count < 3; count += 1) {
      const offset = random.below(Math.max(1, Math.floor(size / clusterSize))) * clusterSize;
      const value = 1 + random.below(255);
      if (offset + clusterSize > size) continue;
      writes.push(`write -c -P ${value} ${offset} ${clusterSize}`);
    }
  }
  // A write that the image cannot take (compressed over data) leaves the others alone.
  spawnSync(peer('qemu-io') ?? '', ['-f', image.format, ...commands(writes), image.path]);
}

function randomWrites(size: number, random: Random): string[] {
  const writes: string[] = [];
  for (let count = 1 + random.below(12); count > 0; count -= 1) {
    const offset = random.below(Math.floor(size / 512)) * 512;
    const wanted = pick(random, [512, 4 * KIB, 64 * KIB, 200 * KIB, MIB]);
    const length = Math.min(wanted, Math.floor((size - offset) / 512) * 512);
    const verb = pick(random, ['write -P', 'write -P', 'write -P', 'write -z', 'discard']);
    const value = verb === 'write -P' ? ` ${1 + random.below(255)}` : '';
    writes.push(`${verb}${value} ${offset} ${length}`);
  }
  return writes;
}

function commands(lines: readonly string[]): string[] {
  return lines.flatMap((line) => ['-c', line]);
}

function run(tool: string, args: readonly string[]): void {
  execFileSync(peer(tool) ?? tool, args, { stdio: 'pipe' });
}

/** What a guest reads, by the real tool. */
export function guestView(image: Pick<ChainImage, 'path' | 'format'>): Buffer {
  const flat = `${image.path}.flat`;
  run('qemu-img', ['convert', '-f', image.format, '-O', 'raw', image.path, flat]);
  const bytes = readFileSync(flat);
  rmSync(flat);
  return bytes;
}

/** What the real check finds: 0 nothing, 2 corruption, 3 leaked clusters only. */
export function realCheck(image: ChainImage): number {
  if (image.format === 'raw') return 0;
  const { status } = spawnSync(peer('qemu-img') ?? '', ['check', image.path]);
  return status ?? -1;
}
