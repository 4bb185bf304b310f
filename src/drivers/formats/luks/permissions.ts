// SPDX-License-Identifier: Apache-2.0
// What a LUKS node may do with its children: with the payload what its own parents do with it,
// with a header of its own nothing but reading. While nobody writes the header, others may use the
// same files; that it can always be read is asked for, so that changing it keeps others out.

import { Permission } from '../../../base/index.js';
import type { PermissionPair } from '../../../base/index.js';

export function luksPermissions(child: string, { taken, shared }: PermissionPair): PermissionPair {
  const { consistentRead, write, resize, all } = Permission;
  if (child === 'header') return { taken: consistentRead, shared: all & ~(write | resize) };
  return { taken: taken | consistentRead, shared };
}
