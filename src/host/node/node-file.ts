// SPDX-License-Identifier: Apache-2.0
// A file with Node's own calls only: no discard, no holes, no zeroing without data.
//
// Locks cannot be set. A live QEMU is still found, in the list of locks that the kernel keeps,
// and refused by the same rules; other processes do not see this one.

import { DescriptorFile } from '../descriptor-file.js';
import { readDescriptor, writeDescriptor } from '../descriptor-io.js';
import { findConflict, type LockRequest } from '../file-locks.js';
import type { HostFileCapabilities } from '../host.js';
import { lockConflict } from '../locks/lock-table.js';
import { declaredLocks, holderOf } from '../locks/proc-locks.js';

const CAPABILITIES: HostFileCapabilities = {
  discard: false,
  writeZeroes: false,
  extents: false,
  locks: false,
};

export class NodeFile extends DescriptorFile {
  override readonly capabilities = CAPABILITIES;

  protected override readNow(buffer: Uint8Array, offset: number): number {
    return readDescriptor(this.descriptor, buffer, offset);
  }

  protected override writeNow(buffer: Uint8Array, offset: number): void {
    writeDescriptor(this.descriptor, buffer, offset);
  }

  protected override reserve(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected override adoptHostLocks(): void {}

  protected override lockHost(next: LockRequest): void {
    if (next.taken === 0 && next.unshared === 0) return;
    const declared = declaredLocks(this.identity);
    const conflict = declared === null ? null : findConflict(next, declared);
    if (conflict !== null) throw lockConflict(conflict, this.path, holderOf(this.identity, next));
  }
}
