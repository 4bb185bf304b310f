// SPDX-License-Identifier: Apache-2.0
// The filter `copy-before-write`: before a guest changes data, its old bytes go to the target.
//
// So the target, with what a job has copied, holds the state of the moment the filter came in, and
// that state can be read through the filter (snapshotView) meanwhile. A job gives its bitmap: what
// either has copied the other does not copy again. Nobody may write to the node below past the
// filter, hence no sharing of write.

import { Permission, settle } from '../../../base/index.js';
import type { Eventually, PermissionPair } from '../../../base/index.js';
import { ChildRole, defineDriver, RequestFlag, showBits } from '../../../block/index.js';
import type {
  Child,
  DriverNode,
  Node,
  OpenContext,
  Request,
  SnapshotView,
  TruncateOptions,
} from '../../../block/index.js';
import { CopyBeforeWrite, CopyBitmap } from '../../../block/copy/index.js';
import type { CopyBeforeWriteInternal } from '../../../block/copy/index.js';
import type { CopyBeforeWriteOptions } from './options.js';
import { chosenUnits, timeoutOf } from './setup.js';

type Options = CopyBeforeWriteOptions | CopyBeforeWriteInternal;

const ON_TARGET: PermissionPair = {
  taken: Permission.write,
  shared: Permission.all & ~Permission.resize,
};

export const copyBeforeWrite = defineDriver<Options>({
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
    truncate: 'native',
    planExtents: 'pass',
    reserve: 'none',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  namedAfterFile: true,
  openingPermissions: (_, parents, child) => (child === 'target' ? ON_TARGET : parents),
  open: (context, options) => Promise.resolve(openFilter(context, options)),
});

function openFilter(context: OpenContext, options: Options): CopyBeforeWriteNode {
  const { node } = context;
  const children = { source: context.child('file'), target: context.child('target') };
  if (options.bitmap instanceof CopyBitmap) {
    const own = { bitmap: options.bitmap, onError: 'break-guest-write', timeout: null } as const;
    return new CopyBeforeWriteNode(node, new CopyBeforeWrite({ ...children, ...own }), children);
  }
  const given = options as CopyBeforeWriteOptions;
  const copier = new CopyBeforeWrite({
    ...children,
    bitmap: chosenUnits(context, given),
    onError: given['on-cbw-error'] ?? 'break-guest-write',
    timeout: timeoutOf(context, given),
  });
  return new CopyBeforeWriteNode(node, copier, children);
}

class CopyBeforeWriteNode implements DriverNode {
  readonly #node: Node;
  readonly #file: Child;
  readonly #copier: CopyBeforeWrite;
  readonly #hide: readonly (() => void)[];

  constructor(
    node: Node,
    copier: CopyBeforeWrite,
    { source }: { readonly source: Child },
  ) {
    this.#node = node;
    this.#file = source;
    this.#copier = copier;
    const { done, access } = copier.snapshot;
    this.#hide = [
      showBits(source.node, countOf(copier.bitmap)),
      showBits(node, countOf(done)),
      showBits(node, countOf(access)),
    ];
  }

  get length(): number {
    return this.#file.node.length;
  }

  get limits(): DriverNode['limits'] {
    return this.#file.node.limits;
  }

  get growsOnWrite(): boolean {
    return this.#file.node.driverNode.growsOnWrite === true;
  }

  get snapshotView(): SnapshotView {
    return this.#copier.snapshot;
  }

  childPermissions(child: Child, parents: PermissionPair): PermissionPair {
    if (child.name === 'target') return ON_TARGET;
    // Not in use yet (its users still stand on the node below): nothing to protect.
    if (this.#node.parents.size === 0) return parents;
    const reads = (parents.taken & Permission.write) === 0 ? 0 : Permission.consistentRead;
    return {
      taken: parents.taken | reads,
      shared:
        parents.shared & ~(Permission.write | Permission.resize),
    };
  }

  write(request: Request): Eventually<void> {
    return settle(this.#before(request), () => this.#file.node.write(request));
  }

  writeZeroes(request: Request): Eventually<void> {
    return settle(this.#before(request), () => this.#file.node.writeZeroes(request));
  }

  discard(request: Request): Eventually<void> {
    return settle(this.#before(request), () => this.#file.node.discard(request));
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    const cut = this.length - size;
    const kept = cut > 0 ? this.#copier.before(size, cut) : undefined;
    return settle(kept, () => this.#file.node.truncate(size, options));
  }

  #before(request: Request): Eventually<void> {
    if ((request.flags & RequestFlag.unchanged) !== 0) return undefined;
    return this.#copier.before(request.offset, request.length);
  }

  close(): Promise<void> {
    for (const hide of this.#hide) hide();
    return Promise.resolve();
  }
}

function countOf(bitmap: CopyBitmap): { readonly granularity: number; readonly count: number } {
  return {
    granularity: bitmap.unit,
    get count() {
      return bitmap.dirtyUnits * bitmap.unit;
    },
  };
}
