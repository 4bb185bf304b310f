// SPDX-License-Identifier: Apache-2.0
// Names of nodes: unique, at most 31 bytes, a letter first; unnamed nodes get `#block…`, which no
// user can give. A name is claimed before anything is opened, so that two opens cannot race for it.
import { BlockError, NAME_LIMITS } from '../base/index.js';
const WELL_FORMED = /^[A-Za-z][A-Za-z0-9\-._]*$/;
export class NodeNames {
    #random;
    #taken = new Set();
    #counter = 0;
    constructor(random) {
        this.#random = random;
    }
    /** Throws kind `invalid-option` for a bad name and `exists` for one in use. */
    claim(name) {
        if (name === undefined || name === null)
            return this.#generate();
        if (typeof name !== 'string' || !WELL_FORMED.test(name)) {
            const given = typeof name === 'string' ? name : JSON.stringify(name);
            throw new BlockError('invalid-option', `Invalid node-name: '${given}'`);
        }
        if (Buffer.byteLength(name) > NAME_LIMITS.nodeNameBytes) {
            throw new BlockError('invalid-option', 'Node name too long');
        }
        if (this.#taken.has(name)) {
            throw new BlockError('exists', `Duplicate nodes with node-name='${name}'`);
        }
        this.#taken.add(name);
        return name;
    }
    release(name) {
        this.#taken.delete(name);
    }
    #generate() {
        const digits = String(this.#random.below(100)).padStart(2, '0');
        const name = `#block${this.#counter}${digits}`;
        this.#counter += 1;
        this.#taken.add(name);
        return name;
    }
}
