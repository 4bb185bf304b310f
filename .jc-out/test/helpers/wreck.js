// SPDX-License-Identifier: Apache-2.0
// Files as a program that was killed leaves them, and what a newcomer finds in them.
import { expect } from 'vitest';
import { findBitmap } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { makeGraph, readAll } from './job-stage.js';
import { brokenAt, SECTOR } from './watched-guest.js';
/** Sectors that differ and of which the bitmap does not say so. */
export function unmarked(node, name, now, before) {
    const bitmap = findBitmap(node, name);
    const sectors = [];
    for (let at = 0; at < before.length; at += SECTOR) {
        const same = Buffer.from(before.buffer, before.byteOffset + at, SECTOR).equals(now.subarray(at, at + SECTOR));
        if (!same && bitmap?.isDirty(at) !== true)
            sectors.push(at);
    }
    return sectors;
}
/** The files as they are now, without their users. */
export function bystander(host) {
    const copy = new MemoryHost();
    for (const path of host.paths())
        copy.putFile(path, host.fileContents(path));
    return copy;
}
/** The image as a newcomer finds it: opened by its own header; checks it, gives what it reads. */
export async function inspect(host, path) {
    const graph = makeGraph(host);
    const node = await graph.openImage(path, 'qcow2', true);
    expect((await node.check('none')).corruptions, path).toBe(0);
    const bytes = await readAll(node);
    await graph.close(node);
    return bytes;
}
export async function expectWreck({ host, file, promised }, when) {
    for (const path of ['base.qcow2', 'mid.qcow2', 'target.qcow2'])
        await inspect(host, path);
    expect(brokenAt(promised, await inspect(host, file)), `${file} ${when}`).toBe(-1);
}
