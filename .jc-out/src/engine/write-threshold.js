// SPDX-License-Identifier: Apache-2.0
// Write thresholds: one event when a write to a node goes past an offset, then no more.
//
// The watch waits in front of writes, so lanes do not bypass the node meanwhile.
export class WriteThresholds {
    #events;
    #watches = new WeakMap();
    constructor(events) {
        this.#events = events;
    }
    /** Bytes; 0 when nothing is watched. */
    of(node) {
        return this.#watches.get(node)?.threshold ?? 0;
    }
    /** Replaces what is watched on the node; 0 ends it. Bytes. */
    set(node, threshold) {
        this.#watches.get(node)?.remove();
        this.#watches.delete(node);
        if (threshold === 0)
            return;
        const look = (offset, length, request) => {
            const end = offset + length;
            if (request.kind === 'discard' || end <= threshold || this.of(node) !== threshold)
                return;
            this.set(node, 0);
            this.#events.emit('BLOCK_WRITE_THRESHOLD', {
                'node-name': node.name,
                'amount-exceeded': end - threshold,
                'write-threshold': threshold,
            });
        };
        const remove = node.addObserver({ beforeWrite: look, afterWrite: look });
        this.#watches.set(node, { threshold, remove });
    }
}
