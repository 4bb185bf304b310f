// SPDX-License-Identifier: Apache-2.0
// The one implementation of Node: a driver's open instance, its edges, and the pipeline in front.
//
// Data methods go to the pipeline. Edges and permissions are changed by graph operations only, in
// one synchronous go. A node lives as long as it has a parent or a reference of the monitor.
import { BlockError, must, settle, settleFinally, } from '../base/index.js';
import { exactStatus } from './block-status.js';
import { ChildRole, declarationOf } from './driver.js';
import { renewFilenames } from './open/node-filename.js';
import { NO_PERMISSIONS } from './permissions.js';
import { layerStatus, performTruncate, planExtents, reserve, takeLease, } from './pipeline/fallbacks.js';
import { Pipeline } from './pipeline/pipeline.js';
export class BlockNode {
    name;
    driver;
    pipeline;
    inspectOnly;
    repairs;
    forceShare;
    edges = new Map();
    parents = new Set();
    options;
    /** Options as they were given for this node itself, nothing inherited; children by name. */
    given;
    /** The node that this one was opened for and inherits from; null for nodes of their own. */
    inheritsFrom = null;
    /** A filter that a job put in without being told a name. */
    implicit = false;
    filename = '';
    /** What the parents hold together, as the driver was last told. */
    cumulative = NO_PERMISSIONS;
    /** References that are not edges: the monitor's, or a command line's. */
    references = 0;
    /** Place in the order of listing; 0 until it has one. */
    sequence = 0;
    closing = null;
    /** Opened as raw because nothing was recognised. */
    probedRaw = false;
    /** A filter not in place yet, or no longer: its edges need nothing. */
    outOfPlace = false;
    /** This node as the far end of the edges to its children. */
    asParent;
    constructor(facts) {
        this.name = facts.name;
        this.driver = facts.driver;
        this.options = facts.options;
        this.given = facts.given;
        this.inspectOnly = facts.inspectOnly;
        this.repairs = facts.repairs === true;
        this.forceShare = facts.forceShare;
        this.pipeline = new Pipeline(this, facts.driver, facts.policy);
        this.asParent = {
            description: `node '${facts.name}'`,
            node: this,
            childResized: (child) => this.#childResized(child),
        };
    }
    get driverNode() {
        return this.pipeline.open();
    }
    get readOnly() {
        return this.pipeline.readOnly;
    }
    get length() {
        return this.pipeline.open().length;
    }
    get limits() {
        return this.pipeline.open().limits;
    }
    get children() {
        return this.edges;
    }
    get backing() {
        return this.edgeWithRole(ChildRole.cow)?.node ?? null;
    }
    get filtered() {
        return this.edgeWithRole(ChildRole.filtered)?.node ?? null;
    }
    get primary() {
        return this.edgeWithRole(ChildRole.primary)?.node ?? null;
    }
    get info() {
        return this.pipeline.open().info?.() ?? {};
    }
    /** A node whose size is that of its child has a new size too. */
    #childResized(child) {
        const follows = this.driver.kind === 'filter' ||
            declarationOf(this.driver, child.name)?.permissions === 'filter';
        if (follows && this.pipeline.driverNode !== null)
            this.notifyResized();
    }
    edgeWithRole(role) {
        for (const edge of this.edges.values()) {
            if ((edge.role & role) !== 0)
                return edge;
        }
        return null;
    }
    read(request) {
        return this.pipeline.read(request);
    }
    write(request) {
        return this.pipeline.write(request);
    }
    writeZeroes(request) {
        return this.pipeline.writeZeroes(request);
    }
    discard(request) {
        return this.pipeline.discard(request);
    }
    flush() {
        return this.pipeline.flush();
    }
    blockStatus(offset, length, exact) {
        const size = this.length;
        if (!(offset >= 0 && length > 0 && offset + length <= size)) {
            throw new BlockError('out-of-range', `status of ${length} bytes at ${offset} is not within node '${this.name}' (${size} bytes)`, { node: this.name, offset, operation: 'block-status' });
        }
        const status = layerStatus(this.pipeline, { offset, length }, exact);
        return exact ? settle(status, exactStatus) : status;
    }
    truncate(size, options = {}) {
        const pipeline = this.pipeline;
        const before = pipeline.open().length;
        if (this.readOnly) {
            throw new BlockError('read-only', 'Image is read-only', { node: this.name });
        }
        if (!Number.isSafeInteger(size) || size < 0) {
            throw new BlockError('invalid-option', `Size ${size} of node '${this.name}' is out of range`);
        }
        const full = { exact: true, preallocation: 'off', ...options };
        const from = Math.min(before, size);
        const done = pipeline.serialised(from, Math.max(before, size) - from, () => performTruncate(pipeline, size, full));
        return settle(done, () => this.notifyResized());
    }
    /** Tells observers and parents that the size is another one. */
    notifyResized() {
        const { length } = this.pipeline.open();
        for (const observer of this.pipeline.observers)
            observer.afterResize?.(length);
        for (const edge of this.parents)
            edge.parent.childResized?.(edge);
    }
    planExtents(offset, length) {
        return planExtents(this.pipeline, offset, length);
    }
    lease() {
        return takeLease(this.pipeline);
    }
    reserve(offset, length, unchanged = false) {
        const { pipeline } = this;
        if (pipeline.hasWaitingObserver || this.readOnly)
            return null;
        const reserved = reserve(pipeline, offset, length);
        if (unchanged)
            return reserved;
        return settle(reserved, (reservation) => {
            if (reservation === null)
                return null;
            return tellingEnd(reservation, () => pipeline.noteWrite(offset, length));
        });
    }
    backingLink() {
        return this.pipeline.open().backingLink?.() ?? null;
    }
    async changeBacking(link) {
        const driverNode = this.pipeline.open();
        if (driverNode.changeBacking === undefined || this.driver.supports.changeBacking !== 'native') {
            throw new BlockError('unsupported', `Driver '${this.driver.name}' does not support backing files`, { node: this.name });
        }
        await driverNode.changeBacking(link);
        renewFilenames([this]);
    }
    async check(repair) {
        if (this.driver.supports.check === 'pass') {
            const target = must(this.filtered ?? this.primary, 'child to check');
            return await target.check(repair);
        }
        const driverNode = this.pipeline.open();
        if (driverNode.check === undefined) {
            throw new BlockError('unsupported', 'This image format does not support checks', {
                node: this.name,
            });
        }
        const counted = this.pipeline.tracker;
        counted.count += 1;
        const run = driverNode.check.bind(driverNode);
        return await settleFinally(() => run(repair), () => counted.leaveInline());
    }
    addObserver(observer) {
        return this.pipeline.addObserver(observer);
    }
    exclusive(offset, length, work) {
        const { pipeline } = this;
        return pipeline.serialised(offset, length, () => work((request) => pipeline.perform(request)));
    }
    get inFlight() {
        return this.pipeline.tracker.count;
    }
    get writtenEnd() {
        return this.pipeline.writtenEnd;
    }
    enterBatch(offset, length, writes) {
        return this.pipeline.enterBatch(offset, length, writes);
    }
}
/** `ended` is called once, when the reservation is linked or given back. */
function tellingEnd(reservation, ended) {
    let isOpen = true;
    const end = () => {
        if (isOpen)
            ended();
        isOpen = false;
    };
    return {
        pieces: reservation.pieces,
        link: (outcomes) => settleFinally(() => reservation.link(outcomes), end),
        abandon() {
            reservation.abandon();
            end();
        },
    };
}
