// SPDX-License-Identifier: Apache-2.0
// Turns the tokens of one JSON message into a value.
//
// Integers to 64 bits keep every digit (number or bigint), larger ones and those with a point or
// exponent become JsonDouble. The caller has bounded the count and the nesting of the tokens, so
// recursion here is bounded too. Errors are JsonSyntaxError with the wording QMP clients know.
import { JsonDouble, must } from '../base/index.js';
import { Buffer } from 'node:buffer';
export class JsonSyntaxError extends Error {
    constructor(detail) {
        // A flood of broken messages is one error each: looking up the stack would cost most of it.
        const { stackTraceLimit } = Error;
        Error.stackTraceLimit = 0;
        super(`JSON parse error, ${detail}`);
        Error.stackTraceLimit = stackTraceLimit;
        this.name = 'JsonSyntaxError';
    }
}
const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;
const ESCAPES = {
    0x22: '"',
    0x27: "'",
    0x5c: '\\',
    0x2f: '/',
    0x62: '\b',
    0x66: '\f',
    0x6e: '\n',
    0x72: '\r',
    0x74: '\t',
};
function textOf(bytes) {
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
/** Up to four hexadecimal digits at `index`, or −1. */
function hexUnit(bytes, index) {
    const digits = textOf(bytes.subarray(index, index + 4));
    return /^[0-9a-fA-F]{4}$/.test(digits) ? Number.parseInt(digits, 16) : -1;
}
/** The text between the quotes of a string token. */
export function decodeString(token) {
    const inner = token.subarray(1, token.length - 1);
    const parts = [];
    let plain = 0;
    let index = 0;
    while (index < inner.length) {
        if (inner[index] !== 0x5c) {
            index += 1;
            continue;
        }
        if (index > plain)
            parts.push(decodeUtf8(inner.subarray(plain, index)));
        const escape = inner[index + 1];
        if (escape === 0x75) {
            const [text, used] = unicodeEscape(token, index + 3);
            parts.push(text);
            index += 2 + used;
        }
        else {
            const text = ESCAPES[escape];
            if (text === undefined)
                throw new JsonSyntaxError('invalid escape sequence in string');
            parts.push(text);
            index += 2;
        }
        plain = index;
    }
    if (plain < inner.length)
        parts.push(decodeUtf8(inner.subarray(plain)));
    return parts.join('');
}
/** Decodes what follows `\u` at `index` of the token; gives the text and the bytes used. */
function unicodeEscape(token, index) {
    const first = hexUnit(token, index);
    const bad = (length) => new JsonSyntaxError(`\\u${textOf(token.subarray(index, index + length))} is not a valid Unicode character`);
    if (first < 0)
        throw bad(4);
    if (first >= 0xd800 && first <= 0xdbff) {
        const second = token[index + 4] === 0x5c && token[index + 5] === 0x75 ? hexUnit(token, index + 6) : -1;
        if (second < 0xdc00 || second > 0xdfff)
            throw bad(4);
        return [String.fromCharCode(first, second), 10];
    }
    if (isNoncharacter(first) || (first >= 0xdc00 && first <= 0xdfff))
        throw bad(4);
    return [String.fromCharCode(first), 4];
}
function isNoncharacter(unit) {
    return (unit >= 0xfdd0 && unit <= 0xfdef) || unit === 0xfffe || unit === 0xffff;
}
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Strict UTF-8, but for the two-byte form of NUL, which is accepted. */
function decodeUtf8(bytes) {
    try {
        return utf8.decode(bytes);
    }
    catch {
        const text = Buffer.from(bytes).toString('latin1');
        if (text.includes('\xc0\x80')) {
            return text
                .split('\xc0\x80')
                .map((part) => decodeUtf8(Buffer.from(part, 'latin1')))
                .join('\0');
        }
        throw new JsonSyntaxError('invalid UTF-8 sequence in string');
    }
}
/** Digits that cannot leave the range of exact numbers. */
const SHORT_DIGITS = 15;
function decodeInteger(bytes) {
    if (bytes.length <= SHORT_DIGITS && bytes[0] !== 0x2d) {
        let value = 0;
        for (const digit of bytes)
            value = value * 10 + digit - 0x30;
        return value;
    }
    const text = textOf(bytes);
    const plain = Number(text);
    if (Number.isSafeInteger(plain))
        return plain === 0 ? 0 : plain;
    // A digit string of any length is checked before it becomes a bigint.
    if (text.length > 21)
        return new JsonDouble(plain);
    const exact = BigInt(text);
    return exact < INT64_MIN || exact > UINT64_MAX ? new JsonDouble(plain) : exact;
}
class Parser {
    #next = 0;
    #tokens;
    constructor(tokens) {
        this.#tokens = tokens;
    }
    get position() {
        return this.#next;
    }
    value() {
        const token = this.#take();
        const { bytes } = token;
        switch (token.kind) {
            case 'string':
                return decodeString(bytes);
            case 'integer':
                return decodeInteger(bytes);
            case 'double':
                return new JsonDouble(Number(textOf(bytes)));
            case 'keyword':
                return keyword(textOf(bytes));
            default:
                if (bytes[0] === 0x7b)
                    return this.#object();
                if (bytes[0] === 0x5b)
                    return this.#list();
                throw new JsonSyntaxError('expecting value');
        }
    }
    #object() {
        // No prototype: a member named __proto__ is a member like any other.
        const result = Object.create(null);
        if (this.#accept(0x7d))
            return result;
        for (;;) {
            const key = this.value();
            if (typeof key !== 'string')
                throw new JsonSyntaxError('key is not a string in object');
            if (!this.#accept(0x3a))
                throw new JsonSyntaxError('missing : in object pair');
            const value = this.value();
            if (key in result)
                throw new JsonSyntaxError('duplicate key');
            result[key] = value;
            if (this.#accept(0x7d))
                return result;
            if (!this.#accept(0x2c))
                throw new JsonSyntaxError('expected separator in dict');
        }
    }
    #list() {
        const result = [];
        if (this.#accept(0x5d))
            return result;
        for (;;) {
            result.push(this.value());
            if (this.#accept(0x5d))
                return result;
            if (!this.#accept(0x2c))
                throw new JsonSyntaxError('expected separator in list');
        }
    }
    #take() {
        const token = this.#tokens[this.#next];
        if (token === undefined)
            throw new JsonSyntaxError('premature EOI');
        this.#next += 1;
        return token;
    }
    #accept(structure) {
        const token = this.#tokens[this.#next];
        if (token === undefined)
            throw new JsonSyntaxError('premature EOI');
        if (token.kind !== 'structure' || token.bytes[0] !== structure)
            return false;
        this.#next += 1;
        return true;
    }
}
function keyword(text) {
    if (text === 'true')
        return true;
    if (text === 'false')
        return false;
    if (text === 'null')
        return null;
    throw new JsonSyntaxError(`invalid keyword '${text}'`);
}
/** Why a message of one token is none; null when it is one. Throws nothing. */
export function loneTokenMistake(token) {
    if (token.kind !== 'structure')
        return null;
    const opens = token.bytes[0] === 0x7b || token.bytes[0] === 0x5b;
    return `JSON parse error, ${opens ? 'premature EOI' : 'expecting value'}`;
}
/** The value of a whole message; throws JsonSyntaxError. */
export function parseTokens(tokens) {
    return new Parser(tokens).value();
}
/** The tokens of member `name` of the object that `tokens` spell, as JSON text; null if absent. */
export function memberText(tokens, name, quote) {
    let depth = 0;
    for (let index = 0; index < tokens.length; index += 1) {
        const token = must(tokens[index], 'token index');
        depth += nesting(token);
        const isKey = depth === 1 && token.kind === 'string' && tokens[index + 1]?.bytes[0] === 0x3a;
        if (!isKey || decodeString(token.bytes) !== name)
            continue;
        const rest = tokens.slice(index + 2);
        const parser = new Parser(rest);
        parser.value();
        return rest.slice(0, parser.position).map((part) => spell(part, quote)).join('');
    }
    return null;
}
export function nesting(token) {
    if (token.kind !== 'structure')
        return 0;
    const byte = token.bytes[0];
    if (byte === 0x7b || byte === 0x5b)
        return 1;
    return byte === 0x7d || byte === 0x5d ? -1 : 0;
}
function spell(token, quote) {
    if (token.kind === 'string')
        return quote(decodeString(token.bytes));
    const text = textOf(token.bytes);
    return text === ',' || text === ':' ? `${text} ` : text;
}
