// SPDX-License-Identifier: Apache-2.0
// The filter `mirror_top`, which a mirror or an active commit puts above its source.
//
// Guests write through it: in write-blocking mode a write is over when the target has it, too.
// In a commit it takes no consistent-read, for what lies between is about to lose its meaning.
// It has no options; only jobs make it.

import { Permission } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import type { Child, DriverNode, Request } from '../../../block/index.js';
import type { MirrorInternal, MirrorState } from '../../../block/copy/index.js';

export const mirrorTop = defineDriver<MirrorInternal>({
  name: 'mirror_top',
  kind: 'filter',
  namedAfterFile: true,
  children: { backing: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  supports: {
    read: 'pass',
    write: 'native',
    writeZeroes: 'native',
    discard: 'pass',
    flush: 'pass',
    blockStatus: 'pass',
    truncate: 'none',
    planExtents: 'pass',
    reserve: 'none',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  open: (context, { mirror }) =>
    Promise.resolve(new MirrorTopNode(context.child('backing'), mirror)),
});

class MirrorTopNode implements DriverNode {
  readonly #below: Child;
  readonly #mirror: MirrorState;
  readonly #forwardWrite = (request: Request): Eventually<void> => this.#below.node.write(request);
  readonly #forwardZeroes = (request: Request): Eventually<void> =>
    this.#below.node.writeZeroes(request);

  constructor(below: Child, mirror: MirrorState) {
    this.#below = below;
    this.#mirror = mirror;
  }

  get length(): number {
    return this.#below.node.length;
  }

  get limits(): DriverNode['limits'] {
    return this.#below.node.limits;
  }

  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    const shared = parents.shared | Permission.writeUnchanged;
    if (!this.#mirror.commits) return { taken: parents.taken, shared };
    return {
      taken: parents.taken & ~Permission.consistentRead,
      shared: shared | Permission.consistentRead,
    };
  }

  write(request: Request): Eventually<void> {
    return this.#mirror.write(request, this.#forwardWrite);
  }

  writeZeroes(request: Request): Eventually<void> {
    return this.#mirror.write(request, this.#forwardZeroes);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
