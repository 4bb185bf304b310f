// SPDX-License-Identifier: Apache-2.0
// Requests of several members (throttle nodes) share one set of leaky buckets.
//
// Each direction has one timer for the whole group. Waiting members take turns, and a member's
// requests keep their order; a request that comes while others of its direction wait joins them,
// so nobody is overtaken. A suspended member (its node is drained) is charged but never waits.
// Changed limits begin with empty buckets and count for the requests that wait already.
import { assert, AssertionFailure, must, THROTTLE_LIMITS, } from '../../base/index.js';
import { LeakyBucket } from './bucket.js';
import { checkConfig, UNLIMITED } from './config.js';
import { RATE_NAMES } from './options.js';
function bucketsFor(config) {
    const buckets = RATE_NAMES.map((name) => [name, new LeakyBucket(config.rates[name])]);
    return Object.fromEntries(buckets);
}
export class ThrottleGroup {
    name;
    #clock;
    #members = [];
    #lanes = {
        read: { waiting: 0, turn: 0, cancelTimer: null },
        write: { waiting: 0, turn: 0, cancelTimer: null },
    };
    #config = UNLIMITED;
    #buckets = bucketsFor(UNLIMITED);
    #lastLeak;
    constructor(name, clock) {
        this.name = name;
        this.#clock = clock;
        this.#lastLeak = clock.now();
    }
    get config() {
        return this.#config;
    }
    /** Throws kind `invalid-option` and changes nothing where the limits make no sense. */
    configure(config) {
        checkConfig(config);
        this.#config = config;
        this.#buckets = bucketsFor(config);
        this.#lastLeak = this.#clock.now();
        for (const direction of ['read', 'write'])
            this.#serve(direction);
    }
    get inUse() {
        return this.#members.length > 0;
    }
    join() {
        const member = new Member(this);
        this.#members.push(member);
        return member;
    }
    leave(member) {
        const { read, write } = member.queues;
        assert(read.length + write.length === 0, 'nothing waits at the end');
        this.#members.splice(this.#members.indexOf(member), 1);
    }
    /** Lets all members through for good: the program ends. */
    suspendAll() {
        for (const member of this.#members)
            member.suspend();
    }
    enter(member, direction, bytes) {
        const lane = this.#lanes[direction];
        const free = member.suspended || (lane.waiting === 0 && this.#waitMs(direction) === 0);
        if (free) {
            this.#charge(direction, bytes);
            return undefined;
        }
        return new Promise((pass) => {
            member.queues[direction].push({ bytes, pass });
            lane.waiting += 1;
            this.#arm(direction);
        });
    }
    /** Passes everything of one member. */
    flushMember(member) {
        for (const direction of ['read', 'write']) {
            const released = member.queues[direction].splice(0);
            this.#lanes[direction].waiting -= released.length;
            for (const waiter of released)
                this.#pass(direction, waiter);
            if (this.#lanes[direction].waiting === 0)
                this.#disarm(direction);
        }
    }
    #pass(direction, waiter) {
        this.#charge(direction, waiter.bytes);
        waiter.pass();
    }
    #charge(direction, bytes) {
        const { operationSize } = this.#config;
        const operations = operationSize > 0 && bytes > operationSize ? bytes / operationSize : 1;
        const buckets = this.#buckets;
        buckets['bps-total'].charge(bytes);
        buckets[`bps-${direction}`].charge(bytes);
        buckets['iops-total'].charge(operations);
        buckets[`iops-${direction}`].charge(operations);
    }
    #waitMs(direction) {
        const now = this.#clock.now();
        const seconds = (now - this.#lastLeak) / 1000;
        this.#lastLeak = now;
        const buckets = this.#buckets;
        for (const name of RATE_NAMES)
            buckets[name].leak(seconds);
        const wait = Math.max(buckets['bps-total'].waitSeconds(), buckets[`bps-${direction}`].waitSeconds(), buckets['iops-total'].waitSeconds(), buckets[`iops-${direction}`].waitSeconds());
        // What is shorter than the clock can tell would never end.
        return wait * 1000 < THROTTLE_LIMITS.shortestWaitMs ? 0 : wait * 1000;
    }
    #arm(direction) {
        const lane = this.#lanes[direction];
        if (lane.cancelTimer !== null)
            return;
        const delay = Math.min(this.#waitMs(direction), THROTTLE_LIMITS.longestTimerMs);
        lane.cancelTimer = this.#clock.after(delay, () => {
            lane.cancelTimer = null;
            this.#serve(direction);
        });
    }
    #disarm(direction) {
        const lane = this.#lanes[direction];
        lane.cancelTimer?.();
        lane.cancelTimer = null;
    }
    #serve(direction) {
        const lane = this.#lanes[direction];
        this.#disarm(direction);
        while (lane.waiting > 0) {
            if (this.#waitMs(direction) > 0) {
                this.#arm(direction);
                return;
            }
            const queue = this.#nextQueue(direction);
            lane.waiting -= 1;
            this.#pass(direction, must(queue.shift(), 'a request that waits'));
        }
    }
    /** Queue of the next member in turn that has something waiting. */
    #nextQueue(direction) {
        const lane = this.#lanes[direction];
        const count = this.#members.length;
        for (let step = 0; step < count; step += 1) {
            const index = (lane.turn + step) % count;
            const queue = must(this.#members[index], 'member of a throttle group').queues[direction];
            if (queue.length === 0)
                continue;
            lane.turn = index + 1;
            return queue;
        }
        throw new AssertionFailure('a throttle group counts a request that nobody has');
    }
}
class Member {
    queues = { read: [], write: [] };
    #group;
    #suspensions = 0;
    constructor(group) {
        this.#group = group;
    }
    get suspended() {
        return this.#suspensions > 0;
    }
    enter(direction, bytes) {
        return this.#group.enter(this, direction, bytes);
    }
    suspend() {
        this.#suspensions += 1;
        this.#group.flushMember(this);
    }
    resume() {
        assert(this.#suspensions > 0, 'a throttle member resumes once for each suspension');
        this.#suspensions -= 1;
    }
    leave() {
        this.#group.leave(this);
    }
}
