// SPDX-License-Identifier: Apache-2.0
// blockdev-create for `file`: an existing file is emptied, but only once nobody who uses it
// objects. Durable when it resolves.
import { BlockError, Permission, settle } from '../../../base/index.js';
export async function createFile(context, options) {
    const { filename, size, preallocation = 'off', nocow } = options;
    if (preallocation === 'metadata') {
        throw new BlockError('unsupported', 'Unsupported preallocation mode: metadata', {
            path: filename,
        });
    }
    if (nocow === true) {
        throw new BlockError('unsupported', 'nocow=on is not supported', { path: filename });
    }
    const file = await context.host.createFile(filename);
    try {
        file.lock({ taken: Permission.write | Permission.resize, unshared: Permission.resize });
        await settle(file.truncate(0), () => file.truncate(size, preallocation));
        await file.sync();
    }
    finally {
        await file.close();
    }
}
