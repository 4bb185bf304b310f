// SPDX-License-Identifier: Apache-2.0
// What `info` tells of a LUKS image.

import type { DriverInfo } from '../../../block/index.js';
import { luksFacts } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';

export function luksInfo(header: LuksHeader): DriverInfo {
  return {
    encrypted: true,
    specific: { type: 'luks', data: luksFacts(header) },
  };
}
