// SPDX-License-Identifier: Apache-2.0
// Filters of jobs on their way out. What a filter allows beside it may forbid its removal: its
// users and others of the node below then exclude each other, or a link to it is frozen. Such a
// filter stays, passing everything on, and goes by itself as soon as it can.
//
// Tried again whenever an edge, a permission or a freeze is let go of, in a turn of its own.
import { BlockError } from '../../base/index.js';
import { removeFilter } from '../graph-changes.js';
export class LeavingFilters {
    #graph;
    #changes;
    #filters = new Set();
    #waits = false;
    constructor(graph, changes) {
        this.#graph = graph;
        this.#changes = changes;
    }
    /** Resolves also when the filter cannot go yet. */
    async remove(filter) {
        this.#filters.add(filter);
        await this.#changes.run(() => this.#tryOne(filter));
    }
    /** Something was let go of. */
    retry() {
        if (this.#filters.size === 0 || this.#waits)
            return;
        this.#waits = true;
        void this.#changes.run(() => this.#tryAll());
    }
    /** Everything is closed now, filters like all others. */
    forget() {
        this.#filters.clear();
    }
    async #tryAll() {
        this.#waits = false;
        for (const filter of this.#filters) {
            try {
                await this.#tryOne(filter);
            }
            catch (error) {
                // It is gone; that closing it failed has nobody to be told to.
                if (!(error instanceof BlockError))
                    throw error;
            }
        }
    }
    async #tryOne(filter) {
        if (filter.closing !== null)
            return void this.#filters.delete(filter);
        try {
            await removeFilter(this.#graph, filter);
        }
        catch (error) {
            if (error instanceof BlockError && filter.closing === null)
                return;
            this.#filters.delete(filter);
            throw error;
        }
        this.#filters.delete(filter);
    }
}
