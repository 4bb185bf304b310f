// SPDX-License-Identifier: Apache-2.0
// Counts the calls of a simulated host and fails those that the plan names.

import { BlockError, errnoText, kindOfErrno } from '../../base/index.js';

export const HOST_OPERATIONS = [
  'open',
  'create',
  'read',
  'write',
  'write-zeroes',
  'discard',
  'truncate',
  'sync',
  /** Taking locks; giving them up cannot fail. */
  'lock',
] as const;

export type HostOperation = (typeof HOST_OPERATIONS)[number];

export interface HostFault {
  readonly operation: HostOperation;
  /** Which call of that operation fails, from 1, counted over the matching path (or all). */
  readonly nth: number;
  /** errno name, such as `EIO` or `ENOSPC`. */
  readonly errno: string;
  /** Only calls on files whose path ends with this count. */
  readonly path?: string;
  /** Every call from the nth on fails, as on a full disk. */
  readonly lasting?: boolean;
}

export class FaultPlan {
  readonly #counts = new Map<HostOperation, number>();
  readonly #armed: { fault: HostFault; seen: number }[] = [];

  constructor(faults: readonly HostFault[] = []) {
    for (const fault of faults) this.add(fault);
  }

  /** Adds a fault; its count starts now. */
  add(fault: HostFault): void {
    this.#armed.push({ fault, seen: 0 });
  }

  /** Drops every fault; the counts stay. */
  clear(): void {
    this.#armed.length = 0;
  }

  /** Calls so far of one operation. */
  count(operation: HostOperation): number {
    return this.#counts.get(operation) ?? 0;
  }

  /** Counts a call; the error it is to fail with, or null. */
  next(operation: HostOperation, path: string): BlockError | null {
    this.#counts.set(operation, this.count(operation) + 1);
    let failure: BlockError | null = null;
    for (const entry of this.#armed) {
      const { fault } = entry;
      if (fault.operation !== operation) continue;
      if (fault.path !== undefined && !path.endsWith(fault.path)) continue;
      entry.seen += 1;
      if (entry.seen === fault.nth || (fault.lasting === true && entry.seen > fault.nth)) {
        failure ??= new BlockError(kindOfErrno(fault.errno), errnoText(fault.errno), {
          path,
          operation,
          errno: fault.errno,
        });
      }
    }
    return failure;
  }
}
