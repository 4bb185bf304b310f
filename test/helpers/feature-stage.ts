// SPDX-License-Identifier: Apache-2.0
// Images with features of qcow2 on the crash disk: `/top` with all of them over `/middle` over
// `/base`, the first two with the features that a chain may have; and what power cuts left of one.
import { expect } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { bitmapsOf, internalSnapshotsOf } from '../../src/block/index.js';
import type { Graph, Node, NodeOptions } from '../../src/block/index.js';
import { runImg } from '../../src/cli/img/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { READ_WRITE } from './graph.js';
import { makeGraph, readAll } from './job-stage.js';
import { LUKS_PASSWORD } from './luks.js';

const SECTOR = 512;
const KEY_ID = 'k';
/** An image that is not encrypted has no use for it. */
const KEY = { encrypt: { 'key-secret': KEY_ID } };

export interface Features {
  /** Of `create -o`. */
  readonly options: string;
  /** `s1`, taken between the writes that make `/top`. */
  readonly snapshot?: boolean;
  /** `b0`, stored after all of them. */
  readonly bitmap?: boolean;
  readonly dataFile?: boolean;
  readonly lazy?: boolean;
  /** Options for opening it. */
  readonly opening?: Readonly<Record<string, unknown>>;
  /** Has no backing file. */
  readonly alone?: boolean;
  /** Is opened with a secret. */
  readonly encrypted?: boolean;
}

export class FeatureStage {
  readonly disk: CrashDisk;
  readonly random: SeededRandom;

  constructor(
    readonly features: Features,
    readonly seed: number,
  ) {
    this.disk = new CrashDisk({ seed });
    this.random = new SeededRandom(seed);
  }

  get clusterSize(): number {
    const [, count, unit] = /cluster_size=(\d+)(k?)/.exec(this.features.options) ?? [];
    return Number(count) * (unit === 'k' ? 1024 : 1);
  }

  graphOn(host: MemoryHost): Graph {
    return makeGraph(host);
  }

  /** With discards passed on. */
  openOn(graph: Graph, name: string, readOnly: boolean): Promise<Node> {
    return graph.open({
      driver: 'qcow2',
      ...this.features.opening,
      ...KEY,
      'read-only': readOnly,
      discard: 'unmap',
      file: { driver: 'file', filename: name, discard: 'unmap' },
    } as unknown as NodeOptions);
  }

  /** Runs a command line that is to end well. */
  async img(line: string): Promise<void> {
    const said: string[] = [];
    const say = (text: string): void => void said.push(text);
    const words = this.#wordsOf(line);
    const program = { name: 'img', out: say, err: say, terminal: false, host: this.disk };
    const status = await runImg(words, program);
    expect([line, status, said.join('')]).toEqual([line, 0, expect.anything()]);
  }

  /** An encrypted image goes by options, except where it is made. */
  #wordsOf(line: string): string[] {
    const [verb = '', ...rest] = line.split(' ').map((word) => (word === "''" ? '' : word));
    if (this.features.encrypted !== true) return [verb, ...rest];
    const secret = ['--object', `secret,id=${KEY_ID},data=${LUKS_PASSWORD}`];
    if (verb === 'create' || !rest.includes('/top')) return [verb, ...secret, ...rest];
    const image = `driver=qcow2,encrypt.key-secret=${KEY_ID},file.filename=/top`;
    const named = rest.map((word) => (word === '/top' ? image : word));
    return [verb, ...secret, '--image-opts', ...named];
  }

  async makeChain(size: number): Promise<void> {
    const { options, alone, snapshot, bitmap } = this.features;
    await this.img(`create -q -f qcow2 -o cluster_size=4k /base ${size}`);
    await this.#scribble('/base');
    await this.img(`create -q -f qcow2 -o cluster_size=64k /other ${size - 24_576}`);
    await this.#scribble('/other');
    const on = alone === true ? '' : '-b /base -F qcow2 ';
    await this.img(`create -q -f qcow2 -o ${options} ${on}/top ${size}`);
    await this.#scribble('/top');
    if (snapshot === true) await this.img('snapshot -c s1 /top');
    await this.#scribble('/top');
    if (bitmap === true) await this.img('bitmap --add -g 4096 /top b0');
  }

  /** Runs it, and gives what a power cut at each of its writes would leave. */
  async cut(line: string): Promise<MemoryHost[]> {
    const survivors: MemoryHost[] = [];
    this.disk.onWrite = (index) => {
      if (index % 4 === 0) survivors.push(this.disk.durable());
      survivors.push(this.disk.afterPowerLoss(this.random));
    };
    await this.img(line);
    this.disk.onWrite = null;
    survivors.push(this.disk.durable());
    return survivors;
  }

  /** Some refcounts of `/top` are gone, and some count what is not there. */
  damageRefcounts(): void {
    const bytes = this.disk.fileContents('/top').slice();
    const view = new DataView(bytes.buffer);
    const block = Number(view.getBigUint64(Number(view.getBigUint64(48))));
    const width = view.getUint32(4) === 2 ? 16 : 2 ** view.getUint32(96);
    const last = Math.min(
      this.clusterSize,
      Math.floor((bytes.length / this.clusterSize) * (width / 8)),
    );
    bytes.fill(0, block + Math.floor(last / 2), block + last);
    bytes.fill(0xff, block + last, block + Math.min(this.clusterSize, last + 8));
    const longer = new Uint8Array(bytes.length + 32 * this.clusterSize);
    longer.set(bytes);
    this.disk.putFile('/top', longer);
  }

  async #scribble(name: string): Promise<void> {
    const graph = makeGraph(this.disk);
    const node = await openWithKey(graph, name, false);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    for (let count = 0; count < 5; count += 1) {
      const offset = SECTOR * this.random.below(node.length / SECTOR);
      const length = Math.min(node.length - offset, SECTOR * (1 + this.random.below(70)));
      if (this.random.below(4) === 0) await user.writeZeroes(offset, length);
      else await user.write(offset, new Uint8Array(length).fill(1 + this.random.below(8)));
    }
    await user.detach();
    await graph.closeAll();
  }
}

/** With the key that it needs if it is encrypted; closed with the graph. */
export function openWithKey(graph: Graph, name: string, readOnly: boolean): Promise<Node> {
  const file = { driver: 'file', filename: name };
  return graph.open({
    driver: 'qcow2',
    'read-only': readOnly,
    ...KEY,
    file,
  } as unknown as NodeOptions);
}

/** The lowest of the incompatible feature bits. */
export function isMarkedDirty(host: MemoryHost, name: string): boolean {
  const bytes = host.fileContents(name);
  return (bytes[7] ?? 0) >= 3 && ((bytes[79] ?? 0) & 1) !== 0;
}

/**
 * As a newcomer reads it; the image must check well. One that is marked dirty, which `lazy` ones
 * may be, shows the same before and after it was opened for writing, and is whole then.
 */
export async function viewAfter(
  host: MemoryHost,
  name: string,
  { lazy = false }: { readonly lazy?: boolean } = {},
): Promise<Uint8Array> {
  if (!isMarkedDirty(host, name)) return soundView(host, name);
  expect(lazy, 'is marked dirty').toBe(true);
  const dirty = await shownView(host, name);
  const other = makeGraph(host);
  const writer = await openWithKey(other, name, false);
  const user = await other.attach(writer, 'guest', READ_WRITE);
  await user.write(0, dirty.subarray(0, SECTOR));
  await user.detach();
  await other.closeAll();
  expect(isMarkedDirty(host, name)).toBe(false);
  const clean = await soundView(host, name);
  expect(Buffer.compare(clean, dirty)).toBe(0);
  return clean;
}

async function soundView(host: MemoryHost, name: string): Promise<Uint8Array> {
  await withNode(host, name, async (node) => {
    const { corruptions, checkErrors, messages } = await node.check('none');
    expect([corruptions, checkErrors], messages.join('; ')).toEqual([0, 0]);
  });
  return shownView(host, name);
}

/** As it is read, whatever a check would find. */
export function shownView(host: MemoryHost, name: string): Promise<Uint8Array> {
  return withNode(host, name, readAll);
}

/** What each internal snapshot shows, in hexadecimal, by its name. */
export async function snapshotViews(
  host: MemoryHost,
  name: string,
): Promise<Readonly<Record<string, string>>> {
  const views: Record<string, string> = {};
  const list = await withNode(host, name, (node) => internalSnapshotsOf(node)?.list() ?? []);
  for (const facts of list) {
    views[facts.name] = await withNode(host, name, async (node) => {
      await internalSnapshotsOf(node)?.show(facts);
      return Buffer.from(await readAll(node)).toString('hex');
    });
  }
  return views;
}

/** A bitmap that is trusted, stored when the image was `before`, says all that is not as it was. */
export async function expectTrusted(
  host: MemoryHost,
  name: string,
  { before, view }: { readonly before: Uint8Array; readonly view: Uint8Array },
): Promise<void> {
  await withNode(host, name, (node) => {
    for (const bitmap of bitmapsOf(node)) {
      if (bitmap.name !== 'b0' || bitmap.inconsistent) continue;
      for (let offset = 0; offset < before.length; offset += SECTOR) {
        const [then, now] = [before, view].map((all) => all.subarray(offset, offset + SECTOR));
        if (Buffer.compare(then ?? view, now ?? before) === 0) continue;
        expect([offset, bitmap.isDirty(offset)]).toEqual([offset, true]);
      }
    }
  });
}

async function withNode<T>(
  host: MemoryHost,
  name: string,
  act: (node: Node) => T | Promise<T>,
): Promise<T> {
  const graph = makeGraph(host);
  try {
    return await act(await openWithKey(graph, name, true));
  } finally {
    await graph.closeAll();
  }
}
