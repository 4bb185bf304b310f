// SPDX-License-Identifier: Apache-2.0
// What `info` tells of a LUKS image.

import type { DriverInfo } from '../../../block/index.js';
import { luksFacts } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { luks2Facts } from '../../../crypto/luks2/index.js';
import type { Luks2Header } from '../../../crypto/luks2/index.js';

export function luksInfo(header: LuksHeader): DriverInfo {
  return {
    encrypted: true,
    specific: { type: 'luks', data: luksFacts(header) },
  };
}

export function luks2Info(header: Luks2Header): DriverInfo {
  const data = luks2Facts(header);
  return { encrypted: true, ...(data === null ? {} : { specific: { type: 'luks', data } }) };
}
