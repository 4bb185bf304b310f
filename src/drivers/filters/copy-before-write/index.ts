// SPDX-License-Identifier: Apache-2.0
// The filter `copy-before-write`: before a guest changes data, its old bytes go to the target.
//
// So the target, with what a job has copied, holds the state of the moment the filter came in. A
// job gives its bitmap: what either has copied the other does not copy again. Nobody may write to
// the node below past the filter, hence no sharing of write.

import { BlockError, Permission, settle } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import type { Child, DriverNode, Node, Request } from '../../../block/index.js';
import { CopyBeforeWrite, CopyBitmap, copyUnit } from '../../../block/copy/index.js';
import type { CopyBeforeWriteInternal } from '../../../block/copy/index.js';
import type { CopyBeforeWriteOptions } from './options.js';

export const copyBeforeWrite = defineDriver<CopyBeforeWriteOptions | CopyBeforeWriteInternal>({
  name: 'copy-before-write',
  kind: 'filter',
  children: {
    file: { role: ChildRole.filtered | ChildRole.primary, required: true },
    target: { role: ChildRole.data, required: true },
  },
  supports: {
    read: 'pass',
    write: 'native',
    writeZeroes: 'native',
    discard: 'native',
    flush: 'pass',
    blockStatus: 'pass',
    truncate: 'none',
    planExtents: 'pass',
    reserve: 'none',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  open(context, options) {
    const file = context.child('file');
    const target = context.child('target');
    if ('bitmap' in options) {
      const { bitmap } = options;
      const setup = { node: context.node, file, target, bitmap, writesTarget: true };
      return Promise.resolve(new CopyBeforeWriteNode(setup));
    }
    if ((options['cbw-timeout'] ?? 0) !== 0) {
      throw new BlockError('unsupported', "Parameter 'cbw-timeout' is not supported");
    }
    const bitmap = new CopyBitmap(file.node.length, copyUnit(target.node));
    const onError = options['on-cbw-error'] ?? 'break-guest-write';
    const { node } = context;
    // Without writers above there is nothing to copy.
    const writesTarget = !context.readOnly;
    const setup = { node, file, target, bitmap, onError, writesTarget };
    return Promise.resolve(new CopyBeforeWriteNode(setup));
  },
});

interface CopyBeforeWriteSetup {
  readonly node: Node;
  readonly file: Child;
  readonly target: Child;
  readonly bitmap: CopyBitmap;
  /** A job copies to the target even when its source cannot be written. */
  readonly writesTarget: boolean;
  readonly onError?: 'break-guest-write' | 'break-snapshot';
}

class CopyBeforeWriteNode implements DriverNode {
  readonly #node: Node;
  readonly #file: Child;
  readonly #copier: CopyBeforeWrite;
  readonly #writesTarget: boolean;

  constructor(setup: CopyBeforeWriteSetup) {
    this.#node = setup.node;
    this.#file = setup.file;
    this.#writesTarget = setup.writesTarget;
    this.#copier = new CopyBeforeWrite({
      bitmap: setup.bitmap,
      source: setup.file,
      target: setup.target,
      onError: setup.onError ?? 'break-guest-write',
    });
  }

  get length(): number {
    return this.#file.node.length;
  }

  get limits(): DriverNode['limits'] {
    return this.#file.node.limits;
  }

  childPermissions(child: Child, parents: PermissionPair): PermissionPair {
    if (child.name === 'target') {
      const taken = this.#writesTarget ? Permission.write : Permission.none;
      return { taken, shared: Permission.all & ~Permission.resize };
    }
    // Not in use yet (its users still stand on the node below): nothing to protect.
    if (this.#node.parents.size === 0) return parents;
    const reads = (parents.taken & Permission.write) === 0 ? 0 : Permission.consistentRead;
    return {
      taken: parents.taken | reads,
      shared: parents.shared & ~(Permission.write | Permission.resize),
    };
  }

  write(request: Request): Eventually<void> {
    return settle(this.#copier.before(request.offset, request.length), () =>
      this.#file.node.write(request),
    );
  }

  writeZeroes(request: Request): Eventually<void> {
    return settle(this.#copier.before(request.offset, request.length), () =>
      this.#file.node.writeZeroes(request),
    );
  }

  discard(request: Request): Eventually<void> {
    return settle(this.#copier.before(request.offset, request.length), () =>
      this.#file.node.discard(request),
    );
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
