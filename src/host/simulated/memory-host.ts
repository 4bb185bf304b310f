// SPDX-License-Identifier: Apache-2.0
// A host whose files live in memory. Without a seed every call answers inline; with one, a share
// of the calls answers later and in seeded order, so both ways of every caller are exercised.

import {
  BlockError,
  type Clock,
  errnoText,
  kindOfErrno,
  ManualClock,
  type Random,
  SeededRandom,
} from '../../base/index.js';
import type { FileStat, Host, HostFile, OpenFileOptions } from '../host.js';
import { LockTable } from '../locks/lock-table.js';
import { tooLong } from '../read-whole.js';
import { FaultPlan, type HostFault } from './fault-plan.js';
import { MemoryFile, type SimulatedContext } from './memory-file.js';
import { SimulatedScheduler } from './scheduler.js';
import { SimulatedVolume, type VolumeChange, type VolumeNode } from './simulated-volume.js';

/** Alignment that a file opened direct asks for, in bytes. */
const DIRECT_ALIGNMENT = 512;

export interface MemoryHostOptions {
  /** Replays a run; without it every data call answers inline. */
  readonly seed?: number;
  /** Share of data calls that answer later, 0 to 1; 0.25 with a seed, 0 without. */
  readonly laterChance?: number;
  /** A ManualClock unless given. */
  readonly clock?: Clock;
  readonly faults?: readonly HostFault[];
}

export class MemoryHost implements Host {
  readonly name = 'simulated';
  readonly clock: Clock;
  readonly random: Random;
  /** Counts calls and fails those it is told to. */
  readonly faults: FaultPlan;
  protected readonly volume = new SimulatedVolume();
  readonly #locks = new LockTable();
  readonly #context: SimulatedContext;
  readonly #secrets: Random;

  constructor(options: MemoryHostOptions = {}) {
    const seed = options.seed ?? 0;
    this.clock = options.clock ?? new ManualClock();
    this.random = new SeededRandom(seed);
    this.#secrets = new SeededRandom(seed ^ 0x5ec2e7);
    this.faults = new FaultPlan(options.faults);
    const laterChance = options.laterChance ?? (options.seed === undefined ? 0 : 0.25);
    this.#context = {
      scheduler: new SimulatedScheduler(new SeededRandom(seed ^ 0x5eed), laterChance),
      faults: this.faults,
      changing: (node) => this.beforeChange(node),
      changed: (node, change) => this.recordChange(node, change),
      beginSync: (node) => this.beginSync(node),
    };
  }

  async readWhole(path: string, most: number): Promise<Uint8Array> {
    const file = this.openFileNow(path, { readOnly: true });
    try {
      if (file.size() > most) throw tooLong(path, most);
      const bytes = new Uint8Array(file.size());
      await file.read(bytes, 0);
      return bytes;
    } finally {
      await file.close();
    }
  }

  readonly iterationsPerMs = 1;

  fillSecret(buffer: Uint8Array): void {
    this.#secrets.fill(buffer);
  }

  async openFile(path: string, options: OpenFileOptions): Promise<HostFile> {
    return this.openFileNow(path, options);
  }

  openFileNow(path: string, options: OpenFileOptions): HostFile {
    const failure = this.faults.next('open', path);
    const node = this.volume.find(path);
    if (failure !== null) throw openError(path, failure.errno);
    if (node === undefined) throw openError(path, 'ENOENT');
    return this.#open(path, node, options);
  }

  async createFile(path: string): Promise<HostFile> {
    const failure = this.faults.next('create', path);
    if (failure !== null) throw createError(path, failure.errno);
    const node = this.volume.find(path) ?? this.volume.create(path);
    return this.#open(path, node, { readOnly: false });
  }

  async stat(path: string): Promise<FileStat | null> {
    const node = this.volume.find(path);
    if (node === undefined) return null;
    const { size, allocatedBytes } = node.store;
    return { identity: node.identity, kind: 'file', size, allocatedBytes };
  }

  async removeFile(path: string): Promise<void> {
    if (this.volume.remove(path)) return;
    const message = `Could not remove '${path}': ${errnoText('ENOENT')}`;
    throw new BlockError('not-found', message, { path });
  }

  /** Puts a file in place, durable at once; replaces one of that name. Size in bytes. */
  putFile(path: string, contents: Uint8Array, size = contents.length): void {
    const node = this.volume.create(path);
    node.store.write(contents, 0);
    node.store.truncate(size);
  }

  /** A copy of a whole file as it reads now. */
  fileContents(path: string): Uint8Array {
    const node = this.volume.find(path);
    if (node === undefined) throw openError(path, 'ENOENT');
    const contents = new Uint8Array(node.store.size);
    node.store.read(contents, 0);
    return contents;
  }

  /** Names of all files, in the order of their creation. */
  paths(): string[] {
    return [...this.volume.nodes()].map((node) => node.path);
  }

  /** Called before every change of a file. */
  protected beforeChange(_node: VolumeNode): void {}

  /** Called after every change of a file; a crash disk keeps it. */
  protected recordChange(_node: VolumeNode, _change: VolumeChange): void {}

  /** Called when a sync begins; the result is called if it succeeds. */
  protected beginSync(_node: VolumeNode): () => void {
    return () => undefined;
  }

  #open(path: string, node: VolumeNode, options: OpenFileOptions): HostFile {
    return new MemoryFile(node, this.#context, {
      path,
      identity: node.identity,
      kind: 'file',
      readOnly: options.readOnly,
      noFlush: options.noFlush ?? false,
      alignment: options.direct === true ? DIRECT_ALIGNMENT : 1,
      locks: this.#locks,
    });
  }
}

function createError(path: string, errno: string): BlockError {
  const message = `Could not create '${path}': ${errnoText(errno)}`;
  return new BlockError(kindOfErrno(errno), message, { path, errno });
}

function openError(path: string, errno: string): BlockError {
  const kind = errno === 'ENOENT' ? 'not-found' : 'io';
  return new BlockError(kind, `Could not open '${path}': ${errnoText(errno)}`, { path, errno });
}
