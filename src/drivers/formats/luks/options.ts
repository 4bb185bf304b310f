// SPDX-License-Identifier: Apache-2.0
// Options of the driver `luks`. Pure data.

import { blockdevRef } from '../../../block/options.js';
import { optional, str, struct } from '../../../schema/index.js';
import type { Infer } from '../../../schema/index.js';

export const luksOptions = struct('BlockdevOptionsLUKS', {
  file: blockdevRef,
  /** Id of the secret whose data is the password; needed for all but looking at the header. */
  'key-secret': optional(str),
});
export type LuksOptions = Infer<typeof luksOptions>;
