// SPDX-License-Identifier: Apache-2.0
// An open file of a simulated host. Each call takes effect at one moment, inline or later by seed.

import { type Eventually } from '../../base/index.js';
import { FileBase, type FileBaseOptions } from '../file-base.js';
import type { LockRequest } from '../file-locks.js';
import type { HostExtent, HostFileCapabilities } from '../host.js';
import type { FaultPlan, HostOperation } from './fault-plan.js';
import type { SimulatedScheduler } from './scheduler.js';
import { applyChange, type VolumeChange, type VolumeNode } from './simulated-volume.js';

/** What a file needs of its host. */
export interface SimulatedContext {
  readonly scheduler: SimulatedScheduler;
  readonly faults: FaultPlan;
  /** Called before a change takes effect. */
  changing(node: VolumeNode): void;
  /** Called after a change took effect. */
  changed(node: VolumeNode, change: VolumeChange): void;
  /** Takes note of what a sync beginning now will cover; call the result when it is over. */
  beginSync(node: VolumeNode): () => void;
}

export class MemoryFile extends FileBase {
  readonly capabilities: HostFileCapabilities = {
    discard: true,
    writeZeroes: true,
    extents: true,
    locks: true,
  };
  readonly descriptor = null;
  readonly #node: VolumeNode;
  readonly #context: SimulatedContext;

  constructor(node: VolumeNode, context: SimulatedContext, options: FileBaseOptions) {
    super(options);
    this.#node = node;
    this.#context = context;
  }

  size(): number {
    return this.#node.store.size;
  }

  allocatedBytes(): number {
    return this.#node.store.allocatedBytes;
  }

  read(buffer: Uint8Array, offset: number): Eventually<number> {
    this.assertOpen();
    this.assertAligned(offset, buffer.length);
    return this.#context.scheduler.perform(() => {
      this.#throwIfDue('read');
      return this.#node.store.read(buffer, offset);
    });
  }

  write(buffer: Uint8Array, offset: number): Eventually<void> {
    this.assertAligned(offset, buffer.length);
    return this.#change('write', () => ({ kind: 'write', offset, bytes: buffer.slice() }));
  }

  writeZeroes(offset: number, length: number, _mayUnmap: boolean): Eventually<void> {
    this.assertAligned(offset, length);
    return this.#change('write-zeroes', () => ({ kind: 'write-zeroes', offset, length }));
  }

  discard(offset: number, length: number): Eventually<void> {
    this.assertAligned(offset, length);
    return this.#change('discard', () => ({ kind: 'discard', offset, length }));
  }

  extent(offset: number, length: number): HostExtent {
    this.assertOpen();
    return this.#node.store.extent(offset, length);
  }

  truncate(size: number): Eventually<void> {
    this.assertAligned(size, 0);
    return this.#change('truncate', () => ({ kind: 'truncate', size }));
  }

  protected override syncHost(): Promise<void> {
    const finish = this.#context.beginSync(this.#node);
    return this.#context.scheduler.later(() => {
      this.#throwIfDue('sync');
      finish();
    });
  }

  protected override lockHost(next: LockRequest, held: LockRequest): void {
    const isMore = (next.taken & ~held.taken) !== 0 || (next.unshared & ~held.unshared) !== 0;
    if (isMore) this.#throwIfDue('lock');
  }

  protected override adoptHostLocks(): void {}

  protected override closeHost(): Promise<void> {
    return Promise.resolve();
  }

  #change(operation: HostOperation, describe: () => VolumeChange): Eventually<void> {
    this.assertWritable();
    return this.#context.scheduler.perform(() => {
      this.#throwIfDue(operation);
      const change = describe();
      this.#context.changing(this.#node);
      applyChange(this.#node.store, change);
      this.noteWrite();
      this.#context.changed(this.#node, change);
    });
  }

  #throwIfDue(operation: HostOperation): void {
    const failure = this.#context.faults.next(operation, this.#node.path);
    if (failure !== null) throw failure;
  }
}
