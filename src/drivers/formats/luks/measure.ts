// SPDX-License-Identifier: Apache-2.0
// How long a LUKS file becomes: header and key material, then as many bytes as the disk has.

import type { MeasuredSize, MeasureSource } from '../../../block/index.js';
import { passwordOf } from '../../../block/index.js';
import type { SecretSource } from '../../../block/index.js';
import { headerAreaBytes, luksWish } from '../../../crypto/luks/index.js';
import type { LuksCreateOptions } from './options.js';

/** Throws what creating it would, but for the file. */
export function measureLuks(
  options: Readonly<Record<string, unknown>>,
  source: MeasureSource | null,
  context: { readonly secret?: SecretSource },
): Promise<MeasuredSize> {
  const members = options as Partial<LuksCreateOptions>;
  passwordOf(context, members['key-secret']).fill(0);
  const { spec } = luksWish(members);
  const bytes = headerAreaBytes(spec) + (source?.length ?? Number(members.size ?? 0));
  return Promise.resolve({ required: bytes, fullyAllocated: bytes });
}
