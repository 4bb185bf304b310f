// SPDX-License-Identifier: Apache-2.0
// Cuts a byte stream into JSON tokens, however the bytes are split over packets.
//
// Strings may be in double or single quotes. A byte that fits nowhere makes an `error` token that
// holds what was read of the broken token; after it bytes are skipped up to the next structural
// character, control byte (a tab aside) or 0xFE/0xFF. Those two bytes and control bytes inside a
// token always end in an error, so a client can resynchronise with 0xFF. A token longer than
// `maxBytes` becomes an `overflow` token, and its remaining bytes are skipped in the same way.
/** Bytes up to which a loop copies faster than a call. */
const SHORT_TOKEN = 32;
const QUOTE = 0x22;
const APOSTROPHE = 0x27;
const BACKSLASH = 0x5c;
const MINUS = 0x2d;
const PLUS = 0x2b;
const POINT = 0x2e;
const ZERO = 0x30;
function isDigit(byte) {
    return byte >= 0x30 && byte <= 0x39;
}
function isLetter(byte) {
    return byte >= 0x61 && byte <= 0x7a;
}
function isStructure(byte) {
    return (byte === 0x7b ||
        byte === 0x7d ||
        byte === 0x5b ||
        byte === 0x5d ||
        byte === 0x2c ||
        byte === 0x3a);
}
/** One token for each structural character: they are half of a message and never differ. */
const STRUCTURE = Object.fromEntries(Array.from('{}[],:', (character) => {
    const byte = character.charCodeAt(0);
    return [byte, { kind: 'structure', bytes: Uint8Array.of(byte) }];
}));
/** Single bytes that begin nothing: what floods consist of. */
const STRAY = Array.from({ length: 256 }, (_, byte) => ({
    kind: 'error',
    bytes: Uint8Array.of(byte),
}));
function isSpace(byte) {
    return byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;
}
function isExponent(byte) {
    return byte === 0x65 || byte === 0x45;
}
const NUMBER_STEP = {
    sign: (byte) => (byte === ZERO ? 'zero' : isDigit(byte) ? 'digits' : 'error'),
    zero: (byte) => afterInteger(byte, false),
    digits: (byte) => afterInteger(byte, true),
    point: (byte) => (isDigit(byte) ? 'fraction' : 'error'),
    fraction: (byte) => (isDigit(byte) ? 'fraction' : isExponent(byte) ? 'exponent' : 'before'),
    exponent: (byte) => isDigit(byte) ? 'exponent-digits' : byte === MINUS || byte === PLUS ? 'exponent-sign' : 'error',
    'exponent-sign': (byte) => (isDigit(byte) ? 'exponent-digits' : 'error'),
    'exponent-digits': (byte) => (isDigit(byte) ? 'exponent-digits' : 'before'),
};
function afterInteger(byte, digits) {
    if (isDigit(byte))
        return digits ? 'digits' : 'error';
    if (byte === POINT)
        return 'point';
    return isExponent(byte) ? 'exponent' : 'before';
}
function stringStep(state, byte) {
    if (byte < 0x20 || byte >= 0xfe)
        return 'error';
    switch (state) {
        case 'double-quoted':
            return byte === QUOTE ? 'with' : byte === BACKSLASH ? 'double-quoted-escape' : state;
        case 'single-quoted':
            return byte === APOSTROPHE ? 'with' : byte === BACKSLASH ? 'single-quoted-escape' : state;
        default:
            return state === 'double-quoted-escape' ? 'double-quoted' : 'single-quoted';
    }
}
function stepOf(state, byte) {
    if (state === 'keyword')
        return isLetter(byte) ? 'keyword' : 'before';
    const number = NUMBER_STEP[state];
    return number === undefined ? stringStep(state, byte) : number(byte);
}
function kindOf(state) {
    if (state === 'keyword')
        return 'keyword';
    if (state === 'zero' || state === 'digits')
        return 'integer';
    return state === 'fraction' || state === 'exponent-digits' ? 'double' : 'string';
}
function firstState(byte) {
    if (byte === QUOTE)
        return 'double-quoted';
    if (byte === APOSTROPHE)
        return 'single-quoted';
    if (byte === MINUS)
        return 'sign';
    if (byte === ZERO)
        return 'zero';
    if (isDigit(byte))
        return 'digits';
    return isLetter(byte) ? 'keyword' : null;
}
export class JsonLexer {
    #state = 'start';
    /** Bytes of the token that began in an earlier packet. */
    #held = new Uint8Array(0);
    #heldLength = 0;
    #maxBytes;
    #emit;
    constructor(maxBytes, emit) {
        this.#maxBytes = maxBytes;
        this.#emit = emit;
    }
    feed(bytes) {
        let begin = 0;
        let index = 0;
        while (index < bytes.length) {
            const byte = bytes[index];
            if (this.#state === 'recovery') {
                const resets = isStructure(byte) || (byte < 0x20 && byte !== 0x09) || byte >= 0xfe;
                if (resets)
                    this.#state = 'start';
                else
                    index += 1;
                continue;
            }
            if (this.#state === 'start') {
                begin = index;
                this.#begin(byte);
                index += 1;
                continue;
            }
            const step = stepOf(this.#state, byte);
            if (step === 'before') {
                this.#finish(kindOf(this.#state), bytes, begin, index);
                continue;
            }
            index += 1;
            if (step === 'with')
                this.#finish(kindOf(this.#state), bytes, begin, index);
            else if (step === 'error')
                this.#finish('error', bytes, begin, index);
            else
                this.#state = step;
            if (this.#state === 'start' || this.#state === 'recovery')
                begin = index;
        }
        if (this.#state !== 'start' && this.#state !== 'recovery')
            this.#hold(bytes, begin);
    }
    /** Ends a token that has no terminator yet (a number or keyword at the end of the input). */
    end() {
        if (this.#state === 'start' || this.#state === 'recovery')
            return;
        const complete = stepOf(this.#state, 0x20) === 'before';
        this.#finish(complete ? kindOf(this.#state) : 'error', new Uint8Array(0), 0, 0);
    }
    #begin(byte) {
        if (isSpace(byte))
            return;
        if (isStructure(byte)) {
            this.#emit(STRUCTURE[byte]);
            return;
        }
        const state = firstState(byte);
        if (state === null) {
            this.#state = 'recovery';
            this.#emit(STRAY[byte]);
            return;
        }
        this.#state = state;
    }
    #finish(kind, bytes, begin, end) {
        const held = this.#heldLength;
        const token = new Uint8Array(held + end - begin);
        if (held > 0)
            token.set(this.#held.subarray(0, held));
        if (end - begin > SHORT_TOKEN)
            token.set(bytes.subarray(begin, end), held);
        else
            for (let at = begin; at < end; at += 1)
                token[held + at - begin] = bytes[at];
        this.#heldLength = 0;
        if (this.#held.length > 65_536)
            this.#held = new Uint8Array(0);
        this.#state = kind === 'error' ? 'recovery' : 'start';
        this.#emit({ kind, bytes: token });
    }
    #hold(bytes, begin) {
        const added = bytes.length - begin;
        const length = this.#heldLength + added;
        if (length > this.#maxBytes) {
            this.#heldLength = 0;
            this.#held = new Uint8Array(0);
            this.#state = 'recovery';
            this.#emit({ kind: 'overflow', bytes: this.#held });
            return;
        }
        if (this.#held.length < length) {
            const grown = new Uint8Array(Math.max(length, this.#held.length * 2));
            grown.set(this.#held.subarray(0, this.#heldLength));
            this.#held = grown;
        }
        this.#held.set(bytes.subarray(begin), this.#heldLength);
        this.#heldLength = length;
    }
}
