// SPDX-License-Identifier: Apache-2.0
// Slabs of 1 MiB, aligned to 4 KiB in memory, that threads and O_DIRECT files can share.
//
// They are cut from arenas of shared WebAssembly memory, which the engine maps at page boundaries
// and which takes up memory only where it was touched. Whoever takes a slab owns it until giving
// it back; a slab is never cleared. Arenas are not freed: the peak of use stays mapped.
import { assert } from '../base/index.js';
/** Bytes of one slab. */
export const SLAB_BYTES = 1024 * 1024;
/** Alignment of a slab's address, in bytes. */
export const SLAB_ALIGNMENT = 4096;
const WASM_PAGE_BYTES = 64 * 1024;
const SLABS_PER_ARENA = 32;
const arenas = new WeakSet();
export class BufferPool {
    #free = [];
    #taken = 0;
    /** Slabs that are taken and not given back. */
    get taken() {
        return this.#taken;
    }
    take() {
        if (this.#free.length === 0)
            this.#addArena();
        const slab = this.#free.pop();
        assert(slab !== undefined, 'an arena holds slabs');
        this.#taken += 1;
        return slab;
    }
    give(slab) {
        assert(slab.length === SLAB_BYTES && arenas.has(slab.buffer), 'a slab is given back whole');
        this.#taken -= 1;
        this.#free.push(slab);
    }
    #addArena() {
        const pages = (SLABS_PER_ARENA * SLAB_BYTES) / WASM_PAGE_BYTES;
        const { Memory } = globalThis.WebAssembly;
        const arena = new Memory({ initial: pages, maximum: pages, shared: true }).buffer;
        arenas.add(arena);
        for (let index = SLABS_PER_ARENA - 1; index >= 0; index -= 1) {
            this.#free.push(new Uint8Array(arena, index * SLAB_BYTES, SLAB_BYTES));
        }
    }
}
/** The pool that files and lanes of this thread share. */
export const bufferPool = new BufferPool();
/** Whether the buffer lies in a slab and its address is a multiple of `alignment` (≤ 4096). */
export function isAlignedBuffer(buffer, alignment) {
    return (buffer.byteOffset % alignment === 0 && arenas.has(buffer.buffer));
}
