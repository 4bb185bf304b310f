// SPDX-License-Identifier: Apache-2.0
// A node that lets requests meet rules and breakpoints before they go to its child unchanged.
//
// Lanes are kept away, so that every request is seen. Reads past the end of a child whose size is
// not a multiple of `align` give zeroes there, and writes leave that part out.
import { Permission, settle } from '../../../base/index.js';
import { cutRequest } from '../../../block/index.js';
import { HeldRequests } from './breakpoints.js';
import { limitsOver, ownLimits } from './limits.js';
import { Rules } from './rules.js';
const PERMISSIONS = {
    'consistent-read': Permission.consistentRead,
    write: Permission.write,
    'write-unchanged': Permission.writeUnchanged,
    resize: Permission.resize,
};
function maskOf(names) {
    return (names ?? []).reduce((mask, name) => mask | (PERMISSIONS[name] ?? 0), 0);
}
const NO_BYTES = { offset: 0, length: 0 };
export class BlkdebugNode {
    breakpoints = new HeldRequests();
    #image;
    #rules;
    #own;
    #taken;
    #unshared;
    /** The parents may make the child longer by writing past its end. */
    #parentsResize = false;
    constructor(image, options) {
        this.#image = image;
        this.#rules = new Rules(options);
        this.#own = ownLimits(options, image.node.limits.requestAlignment);
        this.#taken = maskOf(options['take-child-perms']);
        this.#unshared = maskOf(options['unshare-child-perms']);
    }
    get length() {
        return this.#image.node.length;
    }
    get growsOnWrite() {
        return this.#image.node.driverNode.growsOnWrite === true;
    }
    get limits() {
        return limitsOver(this.#own, this.#image.node.limits);
    }
    childPermissions(_child, parents) {
        this.#parentsResize = (parents.taken & Permission.resize) !== 0;
        return {
            taken: parents.taken | this.#taken,
            shared: parents.shared & ~this.#unshared,
        };
    }
    debugEvent(event, canWait) {
        this.#rules.run(event);
        return this.breakpoints.meet(event, canWait);
    }
    read(request) {
        return this.#meeting('read', request, () => this.#read(request));
    }
    write(request) {
        return this.#changing('pwritev', () => this.#meeting('write', request, () => {
            const inside = this.#maySpill ? request : cutRequest(request, this.length);
            return inside === null ? undefined : this.#image.node.write(inside);
        }));
    }
    writeZeroes(request) {
        return this.#changing('pwritev_zero', () => this.#meeting('write-zeroes', request, () => {
            const inside = cutRequest(request, this.length);
            return inside === null ? undefined : this.#image.node.writeZeroes(inside);
        }));
    }
    discard(request) {
        return this.#meeting('discard', request, () => {
            const inside = cutRequest(request, this.length);
            return inside === null ? undefined : this.#image.node.discard(inside);
        });
    }
    flush() {
        return this.#meeting('flush', NO_BYTES, () => this.#image.node.flush());
    }
    blockStatus(offset, length, exact) {
        const met = this.#meet({ ioType: 'block-status', offset, length });
        return settle(met, () => this.#image.node.blockStatus(offset, length, exact));
    }
    drainBegin() {
        this.breakpoints.drainBegin();
    }
    drainEnd() {
        this.breakpoints.drainEnd();
    }
    /** Only flags change, and those are not its concern. */
    reopen() {
        return Promise.resolve(this);
    }
    close() {
        this.breakpoints.letGo();
        return Promise.resolve();
    }
    get #maySpill() {
        return this.#parentsResize && this.growsOnWrite;
    }
    #meeting(ioType, { offset, length }, work) {
        const access = { ioType, offset, length };
        const held = this.breakpoints.atDoor();
        const met = settle(held, () => this.#meet(access));
        return settle(met, (isDone) => (isDone ? undefined : work()));
    }
    /** Throws what the rules say; true: no error, but nothing is to be done either. */
    #meet(access) {
        const met = this.#rules.errorFor(access);
        if (met === null)
            return false;
        const { error, immediately } = met;
        if (!immediately)
            return later(error);
        if (error !== null)
            throw error;
        return true;
    }
    /** A write between its two events: the second comes however the write ends. */
    #changing(event, work) {
        const over = () => this.debugEvent('pwritev_done', true);
        const failed = (error) => settle(over(), () => {
            throw error;
        });
        let result;
        try {
            result = settle(this.debugEvent(event, true), work);
        }
        catch (error) {
            return failed(error);
        }
        return result instanceof Promise ? result.then(over, failed) : over();
    }
    #read(request) {
        const inside = cutRequest(request, this.length);
        request.buffer?.fill(0, inside?.length ?? 0);
        return inside === null ? undefined : this.#image.node.read(inside);
    }
}
async function later(error) {
    await Promise.resolve();
    if (error !== null)
        throw error;
    return true;
}
