// SPDX-License-Identifier: Apache-2.0
// The filter `throttle`: reads and writes wait until their throttle group lets them pass.
//
// Writes, zeroes and discards count as writes; flushes and status never wait. While the node is
// drained everything passes, so that a drain does not last as long as the limits would have it.
import { BlockError, settle } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
export const throttle = defineDriver({
    name: 'throttle',
    kind: 'filter',
    children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'native',
        discard: 'native',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'pass',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'native',
        changeBacking: 'none',
        check: 'none',
    },
    strongOptions: ['throttle-group'],
    reopenOptions: ['throttle-group'],
    open: (context, options) => Promise.resolve(openThrottle(context, options)),
});
function openThrottle(context, options) {
    // Options of a `json:` name are not checked before.
    const name = options['throttle-group'];
    if (name === undefined) {
        throw new BlockError('invalid-option', 'Please specify a throttle group');
    }
    const group = context.throttleGroup?.(name) ?? null;
    if (group === null) {
        throw new BlockError('not-found', `Throttle group '${name}' does not exist`);
    }
    return new ThrottleNode(context.child('file'), group);
}
class ThrottleNode {
    #file;
    #group;
    #member;
    constructor(file, group) {
        this.#file = file;
        this.#group = group;
        this.#member = group.join();
    }
    get length() {
        return this.#file.node.length;
    }
    get growsOnWrite() {
        return this.#file.node.driverNode.growsOnWrite === true;
    }
    get limits() {
        return this.#file.node.limits;
    }
    read(request) {
        return settle(this.#turn('read', request), () => this.#file.node.read(request));
    }
    write(request) {
        return settle(this.#turn('write', request), () => this.#file.node.write(request));
    }
    writeZeroes(request) {
        return settle(this.#turn('write', request), () => this.#file.node.writeZeroes(request));
    }
    discard(request) {
        return settle(this.#turn('write', request), () => this.#file.node.discard(request));
    }
    drainBegin() {
        this.#member.suspend();
    }
    drainEnd() {
        this.#member.resume();
    }
    /** Another group means another member; a group of another object may bear the same name. */
    reopen(context, options) {
        const { 'throttle-group': name } = options;
        const same = context.throttleGroup?.(name) === this.#group;
        return Promise.resolve(same ? this : openThrottle(context, options));
    }
    close() {
        this.#member.leave();
        return Promise.resolve();
    }
    #turn(direction, request) {
        return this.#member.enter(direction, request.length);
    }
}
