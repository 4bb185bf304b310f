// SPDX-License-Identifier: Apache-2.0
// blockdev-create for `file`: an existing file is emptied, but only once nobody who uses it
// objects. `nocow` is a hint, which has no effect here. Durable when it resolves.

import { BlockError, Permission, settle } from '../../../base/index.js';
import type { CreateContext } from '../../../block/index.js';
import type { FileCreateOptions } from './options.js';

export async function createFile(
  context: CreateContext,
  options: Readonly<Record<string, unknown>>,
): Promise<void> {
  const { filename, size, preallocation = 'off' } = options as FileCreateOptions;
  if (preallocation === 'metadata') {
    throw new BlockError('unsupported', 'Unsupported preallocation mode: metadata', {
      path: filename,
    });
  }
  const file = await context.host.createFile(filename);
  try {
    file.lock({ taken: Permission.write | Permission.resize, unshared: Permission.resize });
    await settle(file.truncate(0), () => file.truncate(size, preallocation));
    await file.sync();
  } finally {
    await file.close();
  }
}
