// SPDX-License-Identifier: Apache-2.0
// Options of the driver `luks`: opening and creating. Pure data.

import { blockdevRef, preallocMode } from '../../../block/options.js';
import {
  LUKS_AMEND_MEMBERS,
  LUKS_CREATE_MEMBERS,
  LUKS_OPEN_MEMBERS,
} from '../../../crypto/options.js';
import { optional, size, struct } from '../../../schema/index.js';
import type { Infer } from '../../../schema/index.js';

export const luksOptions = struct('BlockdevOptionsLUKS', {
  file: blockdevRef,
  /** Where the header lies, when it is not before the payload; payload sector 0. */
  header: optional(blockdevRef),
  ...LUKS_OPEN_MEMBERS,
});
export type LuksOptions = Infer<typeof luksOptions>;

export const luksCreateOptions = struct('BlockdevCreateOptionsLUKS', {
  ...LUKS_CREATE_MEMBERS,
  /** Without it the header alone is made. */
  file: optional(blockdevRef),
  /** Gets the header, and `file` the payload alone. */
  header: optional(blockdevRef),
  size,
  preallocation: optional(preallocMode),
});
export type LuksCreateOptions = Infer<typeof luksCreateOptions>;

export const luksAmendOptions = struct('BlockdevAmendOptionsLUKS', LUKS_AMEND_MEMBERS);
