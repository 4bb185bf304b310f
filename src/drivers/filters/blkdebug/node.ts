// SPDX-License-Identifier: Apache-2.0
// A node that lets requests meet rules and breakpoints before they go to its child unchanged.
//
// Lanes are kept away, so that every request is seen. Reads past the end of a child whose size is
// not a multiple of `align` give zeroes there, and writes leave that part out.

import { BlockError, Permission, settle } from '../../../base/index.js';
import type { Eventually, PermissionMask, PermissionPair } from '../../../base/index.js';
import { cutRequest } from '../../../block/index.js';
import type {
  BlockStatus,
  Child,
  DriverNode,
  NodeLimits,
  Request,
} from '../../../block/index.js';
import { HeldRequests } from './breakpoints.js';
import { limitsOver, ownLimits } from './limits.js';
import type { OwnLimits } from './limits.js';
import type { BlkdebugIoType, BlkdebugOptions } from './options.js';
import { Rules } from './rules.js';
import type { Access } from './rules.js';

const PERMISSIONS: Readonly<Record<string, PermissionMask>> = {
  'consistent-read': Permission.consistentRead,
  write: Permission.write,
  'write-unchanged': Permission.writeUnchanged,
  resize: Permission.resize,
};

function maskOf(names: readonly string[] | undefined): PermissionMask {
  return (names ?? []).reduce((mask, name) => mask | (PERMISSIONS[name] ?? 0), 0);
}

const NO_BYTES = { offset: 0, length: 0 };

export class BlkdebugNode implements DriverNode {
  readonly breakpoints = new HeldRequests();
  readonly #image: Child;
  readonly #rules: Rules;
  readonly #own: OwnLimits;
  readonly #taken: PermissionMask;
  readonly #unshared: PermissionMask;
  /** The parents may make the child longer by writing past its end. */
  #parentsResize = false;

  constructor(image: Child, options: BlkdebugOptions) {
    this.#image = image;
    this.#rules = new Rules(options);
    this.#own = ownLimits(options, image.node.limits.requestAlignment);
    this.#taken = maskOf(options['take-child-perms']);
    this.#unshared = maskOf(options['unshare-child-perms']);
  }

  get length(): number {
    return this.#image.node.length;
  }

  get growsOnWrite(): boolean {
    return this.#image.node.driverNode.growsOnWrite === true;
  }

  get limits(): NodeLimits {
    return limitsOver(this.#own, this.#image.node.limits);
  }

  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    this.#parentsResize = (parents.taken & Permission.resize) !== 0;
    return {
      taken: parents.taken | this.#taken,
      shared: parents.shared & ~this.#unshared,
    };
  }

  debugEvent(event: string, canWait: boolean): Eventually<void> {
    this.#rules.run(event);
    return this.breakpoints.meet(event, canWait);
  }

  read(request: Request): Eventually<void> {
    return this.#meeting('read', request, () => this.#read(request));
  }

  write(request: Request): Eventually<void> {
    return this.#changing('pwritev', () =>
      this.#meeting('write', request, () => {
        const inside = this.#maySpill ? request : cutRequest(request, this.length);
        return inside === null ? undefined : this.#image.node.write(inside);
      }),
    );
  }

  writeZeroes(request: Request): Eventually<void> {
    return this.#changing('pwritev_zero', () =>
      this.#meeting('write-zeroes', request, () => {
        const inside = cutRequest(request, this.length);
        if (inside === null) return undefined;
        requireWhole(inside, this.limits);
        return this.#image.node.writeZeroes(inside);
      }),
    );
  }

  discard(request: Request): Eventually<void> {
    return this.#meeting('discard', request, () => {
      const inside = cutRequest(request, this.length);
      return inside === null ? undefined : this.#image.node.discard(inside);
    });
  }

  flush(): Eventually<void> {
    return this.#meeting('flush', NO_BYTES, () => this.#image.node.flush());
  }

  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus> {
    const met = this.#meet({ ioType: 'block-status', offset, length });
    return settle(met, () => this.#image.node.blockStatus(offset, length, exact));
  }

  drainBegin(): void {
    this.breakpoints.drainBegin();
  }

  drainEnd(): void {
    this.breakpoints.drainEnd();
  }

  /** Only flags change, and those are not its concern. */
  reopen(): Promise<DriverNode> {
    return Promise.resolve(this);
  }

  close(): Promise<void> {
    this.breakpoints.letGo();
    return Promise.resolve();
  }

  get #maySpill(): boolean {
    return this.#parentsResize && this.growsOnWrite;
  }

  #meeting(
    ioType: BlkdebugIoType,
    { offset, length }: { readonly offset: number; readonly length: number },
    work: () => Eventually<void>,
  ): Eventually<void> {
    const access = { ioType, offset, length };
    const held = this.breakpoints.atDoor();
    const met = settle(held, () => this.#meet(access));
    return settle(met, (isDone) => (isDone ? undefined : work()));
  }

  /** Throws what the rules say; true: no error, but nothing is to be done either. */
  #meet(access: Access): Eventually<boolean> {
    const met = this.#rules.errorFor(access);
    if (met === null) return false;
    const { error, immediately } = met;
    if (!immediately) return later(error);
    if (error !== null) throw error;
    return true;
  }

  /** A write between its two events: the second comes however the write ends. */
  #changing(event: string, work: () => Eventually<void>): Eventually<void> {
    const over = (): Eventually<void> => this.debugEvent('pwritev_done', true);
    const failed = (error: unknown): Eventually<void> =>
      settle(over(), () => {
        throw error;
      });
    let result: Eventually<void>;
    try {
      result = settle(this.debugEvent(event, true), work);
    } catch (error) {
      return failed(error);
    }
    return result instanceof Promise ? result.then(over, failed) : over();
  }

  #read(request: Request): Eventually<void> {
    const inside = cutRequest(request, this.length);
    request.buffer?.fill(0, inside?.length ?? 0);
    return inside === null ? undefined : this.#image.node.read(inside);
  }
}

async function later(error: Error | null): Promise<boolean> {
  await Promise.resolve();
  if (error !== null) throw error;
  return true;
}

/**
 * Zeroes of less than the limits call best are left to who writes them out, so that this can be
 * tested. Kind `unsupported`.
 */
function requireWhole({ length }: Request, limits: NodeLimits): void {
  if (length >= Math.max(limits.optimalZeroes, limits.requestAlignment)) return;
  throw new BlockError('unsupported', `${length} bytes are less than the limits of the node`);
}
