// SPDX-License-Identifier: Apache-2.0
// What `info` tells of an image's encryption.

import { luksFacts } from '../../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../../crypto/luks/index.js';

/** Member `encrypt`; `luks` is null for the older AES method. */
export function encryptFacts(luks: LuksHeader | null): Readonly<Record<string, unknown>> {
  if (luks === null) return { format: 'aes' };
  const entries = Object.entries(luksFacts(luks));
  // Where the reference prints it.
  const at = entries.findIndex(([name]) => name === 'cipher-mode');
  return Object.fromEntries(entries.toSpliced(at, 0, ['format', 'luks']));
}
