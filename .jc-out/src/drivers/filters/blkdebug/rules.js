// SPDX-License-Identifier: Apache-2.0
// Rules of `blkdebug`: what an event changes, and which error a request meets.
//
// An event runs the rules named after it whose state is the present one. Those that inject errors
// become the armed ones, in the place of all armed before; those that set a state do so when the
// event has run, the first of them winning. A request meets the first armed rule that covers it.
// An errno of 0 shields a request from the rules behind; a negative one has it done without doing.
import { getSystemErrorName } from 'node:util';
import { BlockError, errnoText, kindOfErrno } from '../../../base/index.js';
const SECTOR_BYTES = 512;
const FIRST_STATE = 1;
const DEFAULT_ERRNO = 5;
export class Rules {
    #states;
    #errors;
    #armed = [];
    #state = FIRST_STATE;
    constructor(options) {
        this.#errors = (options['inject-error'] ?? []).map(injectRule);
        this.#states = (options['set-state'] ?? []).map((rule) => ({
            event: rule.event,
            state: int32(rule.state ?? 0),
            newState: int32(rule.new_state),
        }));
        this.run('none');
    }
    /** An event happened. */
    run(event) {
        const here = (rule) => rule.event === event && (rule.state === 0 || rule.state === this.#state);
        const next = this.#states.find(here);
        const armed = this.#errors.filter(here);
        if (armed.length > 0)
            this.#armed = armed;
        if (next !== undefined)
            this.#state = next.newState;
    }
    /** The error that a request meets, or null. */
    errorFor(access) {
        const rule = this.#armed.find((armed) => covers(armed, access));
        if (rule === undefined || rule.errno === 0)
            return null;
        if (rule.once) {
            this.#armed = this.#armed.filter((other) => other !== rule);
            this.#errors = this.#errors.filter((other) => other !== rule);
        }
        const { errno, immediately } = rule;
        return { error: errno < 0 ? null : injectedError(errno, access), immediately };
    }
}
function injectedError(number, { offset, ioType }) {
    const errno = getSystemErrorName(-number);
    const known = errno.startsWith('E');
    const text = known ? errnoText(errno) : `Unknown error ${number}`;
    return new BlockError(kindOfErrno(errno), text, {
        offset,
        operation: ioType,
        errno: known ? errno : 'EIO',
    });
}
function injectRule(options) {
    const sector = Number(options.sector ?? -1);
    return {
        event: options.event,
        state: int32(options.state ?? 0),
        ioType: options.iotype ?? null,
        errno: int32(options.errno ?? DEFAULT_ERRNO),
        byte: sector === -1 ? null : sector * SECTOR_BYTES,
        once: options.once ?? false,
        immediately: options.immediately ?? false,
    };
}
/** States and error numbers have 32 bits, whatever is given. */
function int32(value) {
    return Number(BigInt.asIntN(32, BigInt(value)));
}
function covers(rule, { ioType, offset, length }) {
    if (rule.ioType === null ? ioType === 'block-status' : rule.ioType !== ioType)
        return false;
    return rule.byte === null || (rule.byte >= offset && rule.byte < offset + length);
}
