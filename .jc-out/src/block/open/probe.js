// SPDX-License-Identifier: Apache-2.0
// Finding the format of an image by its first bytes, and what follows from having guessed `raw`.
//
// Someone who can write a raw image could put another format's header there and have the next
// program open whatever files that header names. So a node whose format was guessed as raw refuses
// every write after which it would be recognised as something else.
import { BlockError, IMAGE_LIMITS } from '../../base/index.js';
import { foreignFormat } from './foreign-formats.js';
import { readRequest } from '../request.js';
/** The first bytes of a node, as many as probing looks at. */
export async function readHead(node) {
    const head = new Uint8Array(Math.min(IMAGE_LIMITS.probeBytes, node.length));
    if (head.length > 0)
        await node.read(readRequest(0, head));
    return head;
}
/** The driver that recognises the content best, or null: then it is raw. */
export function probeHead(head, drivers) {
    let best = null;
    let bestScore = 0;
    for (const driver of drivers) {
        const score = driver.probe?.(head) ?? 0;
        if (score > bestScore) {
            best = driver;
            bestScore = score;
        }
    }
    return best;
}
/** Refuses writes that would make a guessed raw image look like another format. */
export class RawProbeGuard {
    /** As the image begins, with every write that was let through already applied. */
    #head;
    #drivers;
    #name;
    constructor(head, drivers, name) {
        this.#head = new Uint8Array(IMAGE_LIMITS.probeBytes);
        this.#head.set(head);
        this.#drivers = drivers;
        this.#name = name;
    }
    beforeWrite(offset, length, request) {
        if (offset >= this.#head.length || length === 0)
            return;
        const head = this.#head.slice();
        const end = Math.min(head.length, offset + length);
        if (request.buffer === null)
            head.fill(0, offset, end);
        else
            head.set(request.buffer.subarray(0, end - offset), offset);
        const format = probeHead(head, this.#drivers)?.name ?? foreignFormat(head);
        if (format !== null) {
            throw new BlockError('permission', `Write to the first sector of node '${this.#name}' would make it look like a ` +
                `'${format}' image, and its format 'raw' was only guessed`, { node: this.#name, offset, hint: 'Specify the format explicitly to allow it.' });
        }
        this.#head.set(head);
    }
}
