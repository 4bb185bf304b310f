// SPDX-License-Identifier: Apache-2.0
// The filter `blkdebug`: errors at chosen points, and limits that the child does not have.
//
// A request first meets the rules, then goes to the child unchanged. Lanes are kept away, so that
// every request is seen. Reads past the end of a child whose size is not a multiple of `align` give
// zeroes there, and writes leave that part out.

import { BlockError, Permission, settle } from '../../../base/index.js';
import type { Eventually, PermissionMask, PermissionPair } from '../../../base/index.js';
import { ChildRole, cutRequest, defineDriver } from '../../../block/index.js';
import type {
  BlockStatus,
  Child,
  DriverNode,
  NodeLimits,
  Request,
} from '../../../block/index.js';
import type { BlkdebugIoType, BlkdebugOptions } from './options.js';
import { Rules } from './rules.js';

export const blkdebug = defineDriver<BlkdebugOptions>({
  name: 'blkdebug',
  kind: 'filter',
  children: { image: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  supports: {
    read: 'native',
    write: 'native',
    writeZeroes: 'native',
    discard: 'native',
    flush: 'native',
    blockStatus: 'native',
    truncate: 'pass',
    planExtents: 'none',
    reserve: 'none',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  strongOptions: [
    'inject-error',
    'set-state',
    'align',
    'max-transfer',
    'opt-write-zero',
    'max-write-zero',
    'opt-discard',
    'max-discard',
  ],
  filenamePrefix: 'blkdebug::',
  reopenOptions: [],
  open(context, options) {
    if (options.config !== undefined) {
      const text = "Option 'config' of driver 'blkdebug' is not supported";
      throw new BlockError('unsupported', text);
    }
    return Promise.resolve(new BlkdebugNode(context.child('image'), options));
  },
});

const PERMISSIONS: Readonly<Record<string, PermissionMask>> = {
  'consistent-read': Permission.consistentRead,
  write: Permission.write,
  'write-unchanged': Permission.writeUnchanged,
  resize: Permission.resize,
};

function maskOf(names: readonly string[] | undefined): PermissionMask {
  return (names ?? []).reduce((mask, name) => mask | (PERMISSIONS[name] ?? 0), 0);
}

const LIMIT_MAX = 2 ** 31 - 1;

/** Limits given in the options; 0 = that of the child. */
interface OwnLimits {
  readonly align: number;
  readonly maxTransfer: number;
  readonly optimalZeroes: number;
  readonly maxZeroes: number;
  readonly optimalDiscard: number;
  readonly maxDiscard: number;
}

function ownLimits(options: BlkdebugOptions, childAlignment: number): OwnLimits {
  const align = Number(options.align ?? 0);
  const isPower = Number.isInteger(Math.log2(align));
  if (align !== 0 && !(align > 0 && align < LIMIT_MAX && isPower)) {
    throw new BlockError('invalid-option', `Cannot meet constraints with align ${align}`);
  }
  const unit = Math.max(1, align, childAlignment);
  const take = (
    name: 'max-transfer' | `${'opt' | 'max'}-${'write-zero' | 'discard'}`,
    multiple: number,
  ): number => {
    const value = options[name] ?? 0;
    if (value >= 0 && value < LIMIT_MAX && value % multiple === 0) return value;
    throw new BlockError('invalid-option', `Cannot meet constraints with ${name} ${value}`);
  };
  const optimalZeroes = take('opt-write-zero', unit);
  const optimalDiscard = take('opt-discard', unit);
  return {
    align,
    maxTransfer: take('max-transfer', unit),
    optimalZeroes,
    maxZeroes: take('max-write-zero', Math.max(unit, optimalZeroes)),
    optimalDiscard,
    maxDiscard: take('max-discard', Math.max(unit, optimalDiscard)),
  };
}

class BlkdebugNode implements DriverNode {
  readonly #image: Child;
  readonly #rules: Rules;
  readonly #own: OwnLimits;
  readonly #taken: PermissionMask;
  readonly #unshared: PermissionMask;
  /** The parents may make the child longer by writing past its end. */
  #parentsResize = false;

  constructor(image: Child, options: BlkdebugOptions) {
    this.#image = image;
    this.#own = ownLimits(options, image.node.limits.requestAlignment);
    this.#rules = new Rules(options);
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
    const below = this.#image.node.limits;
    const own = this.#own;
    return {
      requestAlignment: Math.max(own.align, below.requestAlignment),
      maxTransfer: own.maxTransfer || below.maxTransfer,
      optimalZeroes: own.optimalZeroes || below.optimalZeroes,
      optimalDiscard: own.optimalDiscard || below.optimalDiscard,
      maxZeroes: own.maxZeroes || (below.maxZeroes ?? 0),
      maxDiscard: own.maxDiscard || (below.maxDiscard ?? 0),
    };
  }

  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    this.#parentsResize = (parents.taken & Permission.resize) !== 0;
    return {
      taken: parents.taken | this.#taken,
      shared: (parents.shared | Permission.writeUnchanged) & ~this.#unshared,
    };
  }

  debugEvent(event: string): void {
    this.#rules.run(event);
  }

  read(request: Request): Eventually<void> {
    return settle(this.#meet('read', request), () => this.#read(request));
  }

  write(request: Request): Eventually<void> {
    this.#rules.run('pwritev');
    return this.#changing(this.#meet('write', request), () => {
      const inside = this.#maySpill ? request : cutRequest(request, this.length);
      return inside === null ? undefined : this.#image.node.write(inside);
    });
  }

  writeZeroes(request: Request): Eventually<void> {
    this.#rules.run('pwritev_zero');
    return this.#changing(this.#meet('write-zeroes', request), () => {
      const inside = cutRequest(request, this.length);
      return inside === null ? undefined : this.#image.node.writeZeroes(inside);
    });
  }

  discard(request: Request): Eventually<void> {
    return settle(this.#meet('discard', request), () => {
      const inside = cutRequest(request, this.length);
      return inside === null ? undefined : this.#image.node.discard(inside);
    });
  }

  flush(): Eventually<void> {
    return settle(this.#meet('flush', { offset: 0, length: 0 }), () => this.#image.node.flush());
  }

  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus> {
    return settle(this.#meet('block-status', { offset, length }), () =>
      this.#image.node.blockStatus(offset, length, exact),
    );
  }

  /** Only flags change, and those are not its concern. */
  reopen(): Promise<DriverNode> {
    return Promise.resolve(this);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  get #maySpill(): boolean {
    return this.#parentsResize && this.growsOnWrite;
  }

  #meet(
    ioType: BlkdebugIoType,
    { offset, length }: { readonly offset: number; readonly length: number },
  ): Eventually<void> {
    const met = this.#rules.errorFor({ ioType, offset, length });
    if (met === null) return undefined;
    if (met.immediately) throw met.error;
    return Promise.reject(met.error);
  }

  /** What follows the rules of a write; that it is over is an event, however it ended. */
  #changing(met: Eventually<void>, work: () => Eventually<void>): Eventually<void> {
    const done = (): void => this.#rules.run('pwritev_done');
    const result = settle(met, work);
    if (result instanceof Promise) return result.finally(done);
    done();
    return undefined;
  }

  #read(request: Request): Eventually<void> {
    const inside = cutRequest(request, this.length);
    request.buffer?.fill(0, inside?.length ?? 0);
    return inside === null ? undefined : this.#image.node.read(inside);
  }
}
