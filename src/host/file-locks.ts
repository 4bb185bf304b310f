// SPDX-License-Identifier: Apache-2.0
// Which bytes of an image stand for which permission, as QEMU's programs lay them down.

import { PERMISSION_NAMES } from '../base/index.js';

/** Masks of Permission bits. */
export interface LockRequest {
  /** Permissions this opener uses. */
  readonly taken: number;
  /** Permissions this opener does not let others use. */
  readonly unshared: number;
}

/** First byte of the range that says "I have permission i". */
export const TAKEN_BASE = 100;
/** First byte of the range that says "I do not share permission i". */
export const UNSHARED_BASE = 200;

/** The first conflict of a request with what another opener declared, or null. */
export function findConflict(
  wanted: LockRequest,
  other: LockRequest,
): { permission: string; shared: boolean } | null {
  // All that is taken is told of before what is not shared.
  const taken = lowestName(wanted.taken & other.unshared);
  if (taken !== null) return { permission: taken, shared: false };
  const unshared = lowestName(wanted.unshared & other.taken);
  return unshared === null ? null : { permission: unshared, shared: true };
}

function lowestName(mask: number): string | null {
  for (let bit = 0; bit < PERMISSION_NAMES.length; bit += 1) {
    if (mask & (1 << bit)) return PERMISSION_NAMES[bit] ?? null;
  }
  return null;
}
