// SPDX-License-Identifier: Apache-2.0
// The driver of a file that is named by its path alone: block devices have their own.
/** What a path that cannot be looked at belongs to is for opening it to tell. */
export async function protocolOf(host, path) {
    if (typeof path !== 'string' || !path.startsWith('/dev/'))
        return 'file';
    const found = await host.stat(path).catch(() => null);
    return found?.kind === 'block-device' ? 'host_device' : 'file';
}
