// SPDX-License-Identifier: Apache-2.0
// Image files that commands make: overlays of snapshots, and the targets of the drive-* commands,
// which a job opens for itself.
//
// A file is made in two steps: it is created empty by its protocol, then the format writes its
// header through a node of its own. What fails leaves the file, and no node.
import { resolve } from 'node:path';
import { BlockError, Permission } from '../base/index.js';
import { ChildRole, creationPath, protocolOf, UNNAMED_USER } from '../block/index.js';
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
/** Whether its images can have a backing file. */
export function hasBacking(driver) {
    return Object.values(driver.children).some(({ role }) => (role & ChildRole.cow) !== 0);
}
/** Makes an empty image, durable when this resolves; a file that is there is overwritten. */
export async function createImageFile(registry, image) {
    const { host } = registry.graph;
    const filename = creationPath(image.filename);
    requireCreatable(image, filename);
    const bare = isBare(image.driver);
    const noNode = () => Promise.reject(new BlockError('invalid-state', 'no node'));
    const fileDriver = await registry.driver('file');
    await fileDriver.create?.({ host, node: noNode }, { filename, size: bare ? image.size : 0 });
    if (!bare)
        await writeHeader(registry, image, filename);
}
function requireCreatable({ driver, backing }, path) {
    const { name } = driver;
    if (name !== 'raw' && driver.create === undefined) {
        const text = `Format driver '${name}' does not support image creation`;
        throw new BlockError('unsupported', text, { path });
    }
    if (backing !== null && !hasBacking(driver)) {
        const text = `Backing file not supported for file format '${name}'`;
        throw new BlockError('unsupported', text, { path });
    }
    if (backing?.filename !== path)
        return;
    const text = 'Error: Trying to create an image with the same filename as the backing file';
    throw new BlockError('invalid-option', text, { path });
}
async function writeHeader({ graph }, image, filename) {
    const { driver, size } = image;
    const file = await graph.open({ driver: await protocolOf(graph.host, filename), filename });
    try {
        const backend = await graph.attach(file, UNNAMED_USER, {
            taken: Permission.write | Permission.resize,
            shared: Permission.all,
        });
        try {
            await driver.create?.({ host: graph.host, node: () => Promise.resolve(backend.node) }, { driver: driver.name, file: file.name, size, ...backingLink(image) });
        }
        finally {
            await backend.detach();
        }
    }
    finally {
        await graph.close(file);
    }
}
function backingLink({ backing, backingName }) {
    if (backing === null)
        return {};
    const { filename } = backing;
    if (backingName === 'as-opened') {
        return { 'backing-file': filename, 'backing-fmt': backing.driver.name };
    }
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
    const cache = image.like.options['cache'];
    const protocol = await protocolOf(graph.host, filename);
    const options = {
        driver: format,
        ...(driver.kind === 'protocol' ? { filename } : { file: { driver: protocol, filename } }),
        discard: 'unmap',
        ...(image.name === null ? {} : { 'node-name': image.name }),
        ...(hasBacking(driver) && image.backing !== 'as-header-says' ? { backing: null } : {}),
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
