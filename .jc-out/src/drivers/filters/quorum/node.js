// SPDX-License-Identifier: Apache-2.0
// A node whose children all hold its content.
//
// Reads go to all children and what most of them read is the answer, if `threshold` of them do; or,
// with `fifo`, to one after another until one succeeds. Writes, zeroes and flushes go to all, and
// `threshold` of them have to succeed. Who fails or is outvoted is reported, and gets what won
// when that is asked for.
//
// Overlapping writes go one after another, so that all children order them alike. A read that
// finds a difference while something was written reads once more with writes to its range kept
// out: what differed may have been a write on its way, which must not be reported or undone.
import { BlockError, GRAPH_LIMITS, kindOfErrno, must, Permission, settle, settleFinally, } from '../../../base/index.js';
import { RangeLocks } from '../../../block/copy/index.js';
import { chainStatus, cutRequest, RequestFlag, writeRequest } from '../../../block/index.js';
import { onEach, onOne } from './outcomes.js';
import { reportBad, reportFailure } from './report.js';
import { sameBytes, tally } from './votes.js';
/** Nobody else may write to one child or resize it: that would make it differ. */
export function permissionsOnChild(rewrites, parents) {
    return {
        taken: parents.taken | (rewrites ? Permission.write : 0),
        shared: (parents.shared & Permission.consistentRead) | Permission.writeUnchanged,
    };
}
export class QuorumNode {
    #context;
    #rules;
    #writing = new RangeLocks();
    #children;
    #nextIndex;
    /** Writes begun so far: a read during which none did saw what is there. */
    #changes = 0;
    /** The children's at first; a child that does not grow with the others is outvoted. */
    #length;
    constructor(context, children, rules) {
        this.#context = context;
        this.#children = children;
        this.#rules = rules;
        this.#nextIndex = children.length;
        this.#length = must(children[0], 'first child of a quorum').node.length;
    }
    get length() {
        return this.#length;
    }
    /** What does not fit a child is padded there. */
    get limits() {
        const largest = this.#children.map(({ node }) => node.limits.maxTransfer);
        const bounded = largest.filter((bytes) => bytes > 0);
        return {
            requestAlignment: 1,
            maxTransfer: bounded.length === 0 ? 0 : Math.min(...bounded),
            optimalZeroes: 0,
            optimalDiscard: 0,
        };
    }
    get growsOnWrite() {
        return this.#children.every(({ node }) => node.driverNode.growsOnWrite === true);
    }
    childPermissions(_child, parents) {
        return permissionsOnChild(this.#rules.rewrites, parents);
    }
    read(request) {
        if (this.#rules.pattern === 'fifo')
            return this.#readFirst(request, 0);
        const { offset, length } = request;
        const before = this.#changes;
        const quiet = !this.#writing.overlaps(offset, length);
        return settle(this.#readAll(request), (votes) => {
            if (!votes.differs)
                return votes.failed ? this.#decide(request, votes) : undefined;
            if (quiet && before === this.#changes && !this.#writing.overlaps(offset, length)) {
                return this.#alone(request, () => this.#decide(request, votes));
            }
            return this.#alone(request, () => settle(this.#readAll(request), (again) => this.#decide(request, again)));
        });
    }
    write(request) {
        return this.#change(request, (child) => child.node.write(request));
    }
    writeZeroes(request) {
        return this.#change(request, (child) => child.node.writeZeroes(request));
    }
    flush() {
        const done = onEach(this.#children, ({ node }) => node.flush());
        return settle(done, (outcomes) => {
            const range = { kind: 'flush', offset: 0, length: 0 };
            this.#reportErrors(range, outcomes);
            if (this.#successes(outcomes) < this.#rules.threshold)
                throw this.#tooFew(range, outcomes);
        });
    }
    /** Zeroes where all children have them; the longest answer that says data, which is safe. */
    async blockStatus(offset, length, exact) {
        let data = 0;
        let zero = length;
        for (const child of this.#children) {
            const range = { offset, length, exact };
            let status;
            try {
                status = await chainStatus(child.node, null, range);
            }
            catch (error) {
                if (!(error instanceof BlockError))
                    throw error;
                reportBad(this.#context, child.node, { kind: 'read', offset, length, error });
                status = { length, zero: false };
            }
            if (status.zero)
                zero = Math.min(zero, status.length);
            else
                data = Math.max(data, status.length);
        }
        const isData = data > 0;
        return {
            length: isData ? data : zero,
            allocated: true,
            data: isData,
            zero: !isData,
            compressed: false,
        };
    }
    nextChildName() {
        if (this.#rules.verifies) {
            const text = 'Cannot add a child to a quorum in blkverify mode';
            throw new BlockError('invalid-option', text);
        }
        const { listedChildren, listedChildNames } = GRAPH_LIMITS;
        if (this.#children.length >= listedChildren || this.#nextIndex >= listedChildNames) {
            throw new BlockError('invalid-option', 'Too many children');
        }
        return `children.${this.#nextIndex}`;
    }
    childAdded(child) {
        this.#nextIndex += 1;
        this.#children = [...this.#children, child];
    }
    requireDroppable() {
        const { threshold } = this.#rules;
        if (this.#children.length > threshold)
            return;
        throw new BlockError('invalid-option', `The number of children cannot be lower than the vote threshold ${threshold}`);
    }
    /** The name of the last one is free again. */
    childDropped(child) {
        if (child.name === `children.${this.#nextIndex - 1}`)
            this.#nextIndex -= 1;
        this.#children = this.#children.filter((other) => other !== child);
    }
    close() {
        return Promise.resolve();
    }
    #readFirst(request, index) {
        const child = must(this.#children[index], 'child of a quorum');
        return settle(onOne(() => readOf(child, request)), (error) => {
            if (error === null)
                return undefined;
            const { offset, length } = request;
            reportBad(this.#context, child.node, { kind: 'read', offset, length, error });
            if (index + 1 === this.#children.length)
                throw error;
            return this.#readFirst(request, index + 1);
        });
    }
    #readAll(request) {
        const children = this.#children;
        const buffers = children.map((_, index) => index === 0 && request.buffer !== null ? request.buffer : new Uint8Array(request.length));
        const done = onEach(children, (child, index) => readOf(child, { ...request, buffer: must(buffers[index], 'buffer of a child') }));
        return settle(done, (outcomes) => {
            const answers = buffers.map((buffer, index) => (outcomes[index] === null ? buffer : null));
            const counted = tally(answers, sameBytes);
            const failed = answers.includes(null);
            return { outcomes, failed, counted, differs: counted !== null && counted.losers.length > 0 };
        });
    }
    #decide(request, { outcomes, counted }) {
        const { offset, length, buffer } = request;
        const range = { kind: 'read', offset, length };
        this.#reportErrors(range, outcomes);
        if (counted === null || this.#successes(outcomes) < this.#rules.threshold) {
            reportFailure(this.#context, range);
            throw this.#tooFew(range, outcomes);
        }
        const { winner, losers } = counted;
        if (losers.length > 0 && this.#rules.verifies)
            throw this.#mismatch(request, counted);
        if (winner.voters.length < this.#rules.threshold) {
            reportFailure(this.#context, range);
            throw new BlockError('io', `No ${this.#rules.threshold} children of node '${this.#context.node.name}' agree on ` +
                `${length} bytes at ${offset}`, { node: this.#context.node.name, offset, operation: 'read' });
        }
        const outvoted = losers
            .flatMap(({ voters }) => voters.toReversed())
            .map((index) => must(this.#children[index], 'child of a quorum'));
        for (const { node } of outvoted)
            reportBad(this.#context, node, { ...range, error: null });
        const rewritten = this.#rules.rewrites
            ? onEach(outvoted, ({ node }) => node.write(writeRequest(offset, winner.value)))
            : undefined;
        return settle(rewritten, () => {
            if (winner.value !== buffer)
                buffer?.set(winner.value);
        });
    }
    #change(request, write) {
        return this.#alone(request, () => {
            this.#changes += 1;
            return settle(onEach(this.#children, write), (outcomes) => this.#changed(request, outcomes));
        });
    }
    #changed(request, outcomes) {
        const { offset, length, flags } = request;
        const unsupported = outcomes.find((outcome) => outcome?.kind === 'unsupported');
        // Asked only whether it can be done cheaply: nobody is at fault.
        if ((flags & RequestFlag.noFallback) !== 0 && unsupported)
            throw unsupported;
        const range = { kind: 'write', offset, length };
        this.#reportErrors(range, outcomes);
        if (this.#successes(outcomes) < this.#rules.threshold) {
            reportFailure(this.#context, range);
            throw this.#tooFew(range, outcomes);
        }
        this.#length = Math.max(this.#length, offset + length);
    }
    /** Runs `work` while nobody else changes the range. */
    #alone(range, work) {
        const { offset, length } = range;
        const waiting = this.#writing.wait(offset, length);
        if (waiting !== undefined)
            return waiting.then(() => this.#alone(range, work));
        return settleFinally(work, this.#writing.take(offset, length));
    }
    #successes(outcomes) {
        return outcomes.filter((outcome) => outcome === null).length;
    }
    #reportErrors(range, outcomes) {
        for (const [index, error] of outcomes.entries()) {
            const child = this.#children[index];
            if (error !== null && child)
                reportBad(this.#context, child.node, { ...range, error });
        }
    }
    /** The error that most of the failed children have. */
    #tooFew({ kind, offset }, outcomes) {
        const errors = tally(outcomes, (left, right) => left.errno === right.errno);
        const { value } = must(errors, 'errors of children').winner;
        const { name } = this.#context.node;
        const text = `Fewer than ${this.#rules.threshold} children of node '${name}' can ${kind}`;
        return new BlockError(kindOfErrno(value.errno), `${text}: ${value.message}`, {
            node: name,
            offset,
            operation: kind,
            errno: value.errno,
            cause: value,
        });
    }
    #mismatch({ offset }, { winner, losers }) {
        const other = losers[0]?.value ?? winner.value;
        const at = winner.value.findIndex((byte, index) => byte !== other[index]);
        return new BlockError('io', `quorum: contents mismatch at offset ${offset + at}`, {
            node: this.#context.node.name,
            offset,
            operation: 'read',
        });
    }
}
/** A child that is shorter than the others reads as zeroes there. */
function readOf(child, request) {
    const inside = cutRequest(request, child.node.length);
    request.buffer?.fill(0, inside?.length ?? 0);
    return inside === null ? undefined : child.node.read(inside);
}
