// SPDX-License-Identifier: Apache-2.0
// Names of images: `json:` texts, protocol prefixes, and names relative to an overlay.
import { BlockError, IMAGE_LIMITS } from '../../base/index.js';
/** The one name there is for a null-co node; its size is the default one. */
const NULL_NAME = 'null-co://';
const NULL_AIO_NAME = 'null-aio://';
/** Prefixes of names that images can be opened by, but not made. */
const UNMADE_PROTOCOLS = new Set(['null-co', 'null-aio', 'blkdebug', 'blkverify', 'nbd']);
const PREFIX = /^([^:/]+):/;
export function parseFilename(name) {
    if (name.startsWith('json:'))
        return { kind: 'options', options: parseJson(name) };
    const prefix = PREFIX.exec(name)?.[1];
    if (prefix === undefined)
        return { kind: 'path', path: name };
    if (prefix === 'file')
        return { kind: 'path', path: fileUrlPath(name) };
    if (prefix === 'host_device') {
        const filename = name.slice(prefix.length + 1);
        return { kind: 'options', options: { driver: 'host_device', filename } };
    }
    if (prefix === 'blkdebug')
        return { kind: 'options', options: { file: debugOptions(name) } };
    if (prefix === 'blkverify')
        return { kind: 'options', options: { file: verifyOptions(name) } };
    if (name === NULL_NAME)
        return { kind: 'options', options: { driver: 'null-co' } };
    if (name === NULL_AIO_NAME)
        return { kind: 'options', options: { driver: 'null-aio' } };
    if (prefix === 'nbd' || prefix.startsWith('nbd+')) {
        return { kind: 'options', options: { driver: 'nbd', filename: name } };
    }
    throw new BlockError('invalid-option', `Unknown protocol '${prefix}'`, { path: name });
}
/** The path of the file to make for an image of that name; throws where none can be made. */
export function creationPath(name) {
    const prefix = PREFIX.exec(name)?.[1];
    if (prefix === undefined)
        return name;
    if (prefix === 'file')
        return fileUrlPath(name);
    const driver = prefix.startsWith('nbd+') ? 'nbd' : prefix;
    if (!UNMADE_PROTOCOLS.has(driver)) {
        throw new BlockError('invalid-option', `Unknown protocol '${prefix}'`);
    }
    const text = `Protocol driver '${driver}' does not support image creation`;
    throw new BlockError('unsupported', text);
}
/** `blkdebug:CONFIG:NAME`, the file of rules mostly left empty. */
function debugOptions(name) {
    const text = 'blkdebug requires both config file and image path';
    const [config, image] = twoNames(name, text);
    const rules = config === '' ? {} : { config };
    return { driver: 'blkdebug', ...rules, image: fileOptions(image) };
}
/** `blkverify:RAW:NAME`: a file, and an image whose format is found. */
function verifyOptions(name) {
    const [raw, test] = twoNames(name, 'blkverify requires raw copy and original image path');
    const image = parseFilename(test);
    return {
        driver: 'blkverify',
        raw: fileOptions(raw),
        test: image.kind === 'path' ? { file: fileOptions(test) } : image.options,
    };
}
/** What stands before and after the second colon. */
function twoNames(name, refusal) {
    const rest = name.slice(name.indexOf(':') + 1);
    const colon = rest.indexOf(':');
    if (colon >= 0)
        return [rest.slice(0, colon), rest.slice(colon + 1)];
    throw new BlockError('invalid-option', refusal, { path: name });
}
function fileOptions(name) {
    const parsed = parseFilename(name);
    if (parsed.kind === 'options')
        return parsed.options;
    if (parsed.path !== '')
        return { driver: 'file', filename: parsed.path };
    throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
}
function fileUrlPath(name) {
    const rest = name.slice('file:'.length);
    return rest.startsWith('///') ? rest.slice(2) : rest;
}
function parseJson(name) {
    let value;
    try {
        value = JSON.parse(name.slice('json:'.length));
    }
    catch (error) {
        throw new BlockError('invalid-option', 'Could not parse the JSON options', {
            path: name,
            cause: error,
        });
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw new BlockError('invalid-option', 'Invalid JSON object given', { path: name });
    }
    return nestDotted(value, 0);
}
/** `file.filename` members become nested objects. */
function nestDotted(value, depth) {
    const result = {};
    for (const [key, member] of Object.entries(value)) {
        const path = key.split('.');
        if (depth + path.length > IMAGE_LIMITS.jsonNameDepth) {
            throw new BlockError('invalid-option', 'JSON options of an image are nested too deeply');
        }
        setMember(result, path, nestMember(member, depth + path.length));
    }
    return withLists(result);
}
function nestMember(member, depth) {
    if (typeof member !== 'object' || member === null)
        return member;
    if (!Array.isArray(member))
        return nestDotted(member, depth);
    return member.map((item) => (Array.isArray(item) ? item : nestMember(item, depth)));
}
/** Objects whose members are numbered from 0 become lists. */
function withLists(value) {
    for (const [key, member] of Object.entries(value)) {
        if (typeof member !== 'object' || member === null || Array.isArray(member))
            continue;
        const inner = withLists(member);
        const items = Object.values(inner);
        const isList = items.length > 0 && Object.keys(inner).every((name, index) => name === String(index));
        if (isList)
            define(value, key, items);
    }
    return value;
}
function setMember(target, path, value) {
    let at = target;
    for (const part of path.slice(0, -1)) {
        const present = Object.hasOwn(at, part) ? at[part] : undefined;
        if (typeof present === 'object' && present !== null) {
            at = present;
        }
        else {
            const next = {};
            define(at, part, next);
            at = next;
        }
    }
    define(at, path.at(-1) ?? '', value);
}
/** Also for names like `__proto__`, which plain assignment would treat specially. */
function define(target, key, value) {
    Object.defineProperty(target, key, {
        value,
        enumerable: true,
        configurable: true,
        writable: true,
    });
}
/** A backing name as the overlay's header gives it, made relative to where the overlay is. */
export function resolveBackingName(overlay, name) {
    if (name.startsWith('/') || PREFIX.test(name))
        return name;
    if (overlay === '' || overlay.startsWith('json:')) {
        throw new BlockError('invalid-option', `Cannot use relative backing file names for '${overlay}'`, { path: overlay });
    }
    const slash = overlay.lastIndexOf('/');
    return slash < 0 ? name : overlay.slice(0, slash + 1) + name;
}
