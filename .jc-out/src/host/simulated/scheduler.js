// SPDX-License-Identifier: Apache-2.0
// Decides by seed which simulated calls answer inline and which later, and in which order the
// later ones run. Only promises are used, so a run depends on its seed and on nothing else.
export class SimulatedScheduler {
    #random;
    #laterChance;
    #waiting = [];
    #pumping = false;
    constructor(random, laterChance) {
        this.#random = random;
        this.#laterChance = laterChance;
    }
    /** Runs `action` at once or, by seed, later; an inline failure throws. */
    perform(action) {
        if (this.#laterChance === 0 || !this.#random.chance(this.#laterChance))
            return action();
        return this.later(action);
    }
    /** Runs `action` in a later turn, in seeded order among those that wait. */
    later(action) {
        const result = new Promise((resolve, reject) => {
            this.#waiting.push({
                run() {
                    try {
                        resolve(action());
                    }
                    catch (error) {
                        reject(error);
                    }
                },
            });
        });
        if (!this.#pumping) {
            this.#pumping = true;
            void this.#pump();
        }
        return result;
    }
    async #pump() {
        while (this.#waiting.length > 0) {
            const turns = 1 + this.#random.below(4);
            for (let turn = 0; turn < turns; turn += 1)
                await Promise.resolve();
            const [next] = this.#waiting.splice(this.#random.below(this.#waiting.length), 1);
            next?.run();
        }
        this.#pumping = false;
    }
}
