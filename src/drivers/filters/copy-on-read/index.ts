// SPDX-License-Identifier: Apache-2.0
// The filter `copy-on-read`: what is read from below the overlay is written into it.
//
// Writes pass. `bottom` names the last layer that is copied from; without it the whole chain is.
// A job gives its own copier, so that its fills and those of readers exclude each other.

import { BlockError, Permission, settle } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import type { Child, DriverNode, Node, OpenContext, Request } from '../../../block/index.js';
import { backingOf, CopyOnRead, nodesOfView, skipFilters } from '../../../block/copy/index.js';
import type { CopyOnReadInternal } from '../../../block/copy/index.js';
import type { CopyOnReadOptions } from './options.js';

/** Where an overlay tells no cluster size. */
const DEFAULT_UNIT = 65_536;

export const copyOnRead = defineDriver<CopyOnReadOptions | CopyOnReadInternal>({
  name: 'copy-on-read',
  kind: 'filter',
  children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  supports: {
    read: 'native',
    write: 'pass',
    writeZeroes: 'pass',
    discard: 'pass',
    flush: 'pass',
    blockStatus: 'pass',
    truncate: 'pass',
    planExtents: 'none',
    reserve: 'none',
    compressedWrite: 'pass',
    changeBacking: 'none',
    check: 'none',
  },
  open(context, options) {
    const file = context.child('file');
    if ('copyOnRead' in options) {
      return Promise.resolve(new CopyOnReadNode(file, options.copyOnRead));
    }
    return Promise.resolve(openAlone(context, file, options));
  },
});

function openAlone(context: OpenContext, file: Child, options: CopyOnReadOptions): CopyOnReadNode {
  const bottom = options.bottom === undefined ? null : findBottom(file.node, options.bottom);
  // Looked up for each request: a snapshot puts another overlay below the filter.
  const overlay = {
    get node(): Node {
      return skipFilters(file.node);
    },
  };
  const copier = new CopyOnRead({
    overlay,
    base: () => (bottom === null ? null : backingOf(bottom)),
    get unit() {
      return overlay.node.info.clusterSize ?? DEFAULT_UNIT;
    },
  });
  return new CopyOnReadNode(file, context.readOnly || overlay.node.readOnly ? null : copier);
}

function findBottom(top: Node, name: string): Node {
  for (const node of nodesOfView(top)) {
    if (node.name !== name) continue;
    if (node.driver.kind !== 'filter') return node;
    throw new BlockError('invalid-option', `Bottom node '${name}' is a filter`);
  }
  throw new BlockError('invalid-option', `Bottom node '${name}' not found`);
}

class CopyOnReadNode implements DriverNode {
  readonly #file: Child;
  /** Null when the overlay cannot be written: reads just pass. */
  readonly #copier: CopyOnRead | null;

  constructor(file: Child, copier: CopyOnRead | null) {
    this.#file = file;
    this.#copier = copier;
  }

  get length(): number {
    return this.#file.node.length;
  }

  get growsOnWrite(): boolean {
    return this.#file.node.driverNode.growsOnWrite === true;
  }

  get limits(): DriverNode['limits'] {
    return this.#file.node.limits;
  }

  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    return {
      taken: parents.taken | Permission.writeUnchanged,
      shared: parents.shared | Permission.writeUnchanged,
    };
  }

  read(request: Request): Eventually<void> {
    if (this.#copier === null) return this.#file.node.read(request);
    return settle(this.#copier.fill(request.offset, request.length), (failure) => {
      if (failure !== null) throw failure.error;
      return this.#file.node.read(request);
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
