// SPDX-License-Identifier: Apache-2.0
// Randomness is injected: a seed replays a run. Not for secrets; those come from node:crypto.
/** Differs between processes and calls. Not by node:crypto, which takes 4 ms to load. */
export function freshSeed() {
    const [seconds, nanoseconds] = process.hrtime();
    return (Math.imul(process.pid, 0x9e3779b1) ^ Math.imul(seconds, 0x85ebca6b) ^ nanoseconds) >>> 0;
}
const STEP = 0x9e3779b9;
function mix(state) {
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return mixed ^ (mixed >>> 15);
}
/**
 * A small, fast, well-mixed generator (splitmix32); the same seed gives the same run everywhere.
 */
export class SeededRandom {
    #state;
    constructor(seed) {
        this.#state = seed >>> 0;
    }
    next() {
        this.#state = (this.#state + STEP) >>> 0;
        return mix(this.#state) >>> 0;
    }
    below(bound) {
        return Math.floor((this.next() / 0x1_0000_0000) * bound);
    }
    chance(chance) {
        return this.next() < chance * 0x1_0000_0000;
    }
    fill(buffer) {
        let state = this.#state | 0;
        for (let index = 0; index < buffer.length; index += 1) {
            state = (state + STEP) | 0;
            buffer[index] = mix(state);
        }
        this.#state = state >>> 0;
    }
}
