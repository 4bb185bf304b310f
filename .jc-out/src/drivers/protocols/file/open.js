// SPDX-License-Identifier: Apache-2.0
// Opening a host file as a node: options that are refused, and files that are open for writing
// only while someone may write (`auto-read-only`).
import { BlockError, Permission } from '../../../base/index.js';
import { FileNode } from './node.js';
export async function openFile(context, options) {
    return await openAs('file', context, options);
}
/** As openFile(), for block devices and nothing else. */
export async function openHostDevice(context, options) {
    const found = await context.host.stat(options.filename);
    const fails = found === null || (found.kind === 'directory' && !context.readOnly);
    if (!fails && found.kind !== 'block-device') {
        throw new BlockError('invalid-option', wrongKind('host_device', options.filename), {
            path: options.filename,
        });
    }
    return await openAs('block-device', context, options);
}
async function openAs(kind, context, options) {
    refuseUnsupported(options);
    const flags = wantedFlags(context, options);
    const openAgain = opener(context, options, flags);
    const file = openAgain === null
        ? await context.host.openFile(options.filename, flags)
        : openAgain(true);
    if (file.kind !== kind) {
        await file.close();
        const driver = kind === 'file' ? 'file' : 'host_device';
        throw new BlockError('invalid-option', wrongKind(driver, options.filename), {
            path: options.filename,
        });
    }
    if (options.locking === 'on' && !file.capabilities.locks) {
        await file.close();
        throw new BlockError('unsupported', 'locking=on needs file locks, which this host lacks', {
            path: options.filename,
        });
    }
    return new FileNode({
        node: context.node,
        file,
        locked: options.locking !== 'off',
        flags,
        openAgain,
        taken: Permission.none,
        discards: { succeeded: 0, failed: 0, bytes: 0 },
        reopen: reopenFile,
    });
}
function wrongKind(driver, path) {
    const kind = driver === 'file' ? 'a regular file' : 'either a character or block device';
    return `'${driver}' driver requires '${path}' to be ${kind}`;
}
function wantedFlags(context, options) {
    return {
        readOnly: context.readOnly,
        direct: options.cache?.direct === true,
        noFlush: options.cache?.['no-flush'] === true,
    };
}
function followsUsers(options, flags) {
    return options['auto-read-only'] === true && !flags.readOnly;
}
/** Null unless the file is to be open for writing only while someone may write. */
function opener(context, options, flags) {
    if (!followsUsers(options, flags))
        return null;
    return (readOnly) => context.host.openFileNow(options.filename, { ...flags, readOnly });
}
/** The same file opened another way; the locks follow when the new instance takes over. */
async function reopenFile(current, context, options) {
    const flags = wantedFlags(context, options);
    const isAutomatic = followsUsers(options, flags);
    const same = flags.direct === current.flags.direct &&
        flags.noFlush === current.flags.noFlush &&
        flags.readOnly === current.flags.readOnly &&
        isAutomatic === (current.openAgain !== null);
    if (same)
        return current;
    const openAgain = opener(context, options, flags);
    const file = openAgain === null
        ? await context.host.openFile(options.filename, flags)
        : openAgain((current.taken & ~Permission.consistentRead) === 0);
    const { device, inode } = current.file.identity;
    if (file.identity.device === device && file.identity.inode === inode) {
        return { ...current, file, flags, openAgain };
    }
    await file.close();
    const text = `Could not reopen '${options.filename}': another file has taken its name`;
    throw new BlockError('invalid-state', text, { path: options.filename });
}
function refuseUnsupported(options) {
    const { aio } = options;
    if (aio !== undefined && aio !== 'threads') {
        throw new BlockError('unsupported', `aio=${aio} is not supported`, { path: options.filename });
    }
    if (options['x-check-cache-dropped'] === true) {
        throw new BlockError('unsupported', 'x-check-cache-dropped=on is not supported', {
            path: options.filename,
        });
    }
}
