// SPDX-License-Identifier: Apache-2.0
// Image files that a job makes and opens for itself: the targets of the drive-* commands.
import { resolve } from 'node:path';
import { BlockError, Permission } from '../base/index.js';
import { ChildRole, creationPath } from '../block/index.js';
import { skipFilters } from '../block/copy/index.js';
export async function imageFormat(registry, name) {
    try {
        return await registry.driver(name);
    }
    catch (error) {
        if (!(error instanceof BlockError))
            throw error;
        throw new BlockError('invalid-option', `Unknown file format '${name}'`, { cause: error });
    }
}
/** The file is the image: there is no header. */
function isBare(driver) {
    return driver.name === 'raw' || driver.kind === 'protocol';
}
/** Makes an empty image, durable when this resolves; a file that is there is overwritten. */
export async function createImageFile(registry, image) {
    const { graph } = registry;
    const { driver, size } = image;
    const filename = creationPath(image.filename);
    const bare = isBare(driver);
    if (driver.name !== 'raw' && driver.create === undefined) {
        const text = `Format driver '${driver.name}' does not support image creation`;
        throw new BlockError('unsupported', text);
    }
    if (bare && image.backing !== null) {
        const text = `Backing file not supported for file format '${driver.name}'`;
        throw new BlockError('unsupported', text);
    }
    const noNode = () => Promise.reject(new BlockError('invalid-state', 'no node'));
    const fileDriver = await registry.driver('file');
    const empty = { filename, size: bare ? size : 0 };
    await fileDriver.create?.({ host: graph.host, node: noNode }, empty);
    if (bare)
        return;
    const file = await graph.open({ driver: 'file', filename });
    try {
        const backend = await graph.attach(file, 'an unnamed block device', {
            taken: Permission.write | Permission.resize,
            shared: Permission.all,
        });
        try {
            await driver.create?.({ host: graph.host, node: () => Promise.resolve(backend.node) }, { driver: driver.name, file: file.name, size, ...backingOptions(image.backing) });
        }
        finally {
            await backend.detach();
        }
    }
    finally {
        await graph.close(file);
    }
}
function backingOptions(backing) {
    if (backing === null)
        return {};
    const { filename } = backing;
    const named = filename.startsWith('/') || filename.includes(':');
    return {
        'backing-file': named ? filename : resolve(filename),
        'backing-fmt': skipFilters(backing).driver.name,
    };
}
/** Opens an image read-write. */
export async function openImageFile(registry, image) {
    const { graph } = registry;
    const filename = creationPath(image.filename);
    const format = image.format ?? (await probeFormat(registry, filename));
    const driver = await imageFormat(registry, format);
    const hasBacking = Object.values(driver.children).some(({ role }) => (role & ChildRole.cow) !== 0);
    const cache = image.like.options['cache'];
    const options = {
        driver: format,
        ...(driver.kind === 'protocol' ? { filename } : { file: { driver: 'file', filename } }),
        discard: 'unmap',
        ...(image.name === null ? {} : { 'node-name': image.name }),
        ...(hasBacking && image.backing !== 'as-header-says' ? { backing: null } : {}),
        ...(image.detectZeroes === undefined ? {} : { 'detect-zeroes': image.detectZeroes }),
        ...(cache === undefined ? {} : { cache }),
    };
    return graph.open(options);
}
async function probeFormat(registry, filename) {
    const { graph } = registry;
    let probed;
    try {
        probed = await graph.openImage(filename, null, true, { noBacking: true });
    }
    catch (error) {
        // Said once is enough: the file's own error names it, too.
        const cause = error instanceof Error ? error.cause : null;
        throw cause instanceof BlockError ? cause : error;
    }
    try {
        return probed.driver.name;
    }
    finally {
        await graph.close(probed);
    }
}
