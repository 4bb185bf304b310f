// SPDX-License-Identifier: Apache-2.0
// Turns the tokens of one JSON message into a value.
//
// Integers to 64 bits keep every digit (number or bigint), larger ones and those with a point or
// exponent become JsonDouble. The caller has bounded the count and the nesting of the tokens, so
// recursion here is bounded too. What is wrong is a Mistake, with the wording QMP clients know: a
// value and nothing thrown, since a flood of broken messages is one each.
import { assert, JsonDouble, must } from '../base/index.js';
import { Buffer } from 'node:buffer';
export class Mistake {
    /** As a server answers it. */
    message;
    constructor(detail) {
        this.message = `JSON parse error, ${detail}`;
    }
}
const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;
const BACKSLASH = 0x5c;
const BAD_ESCAPE = new Mistake('invalid escape sequence in string');
const BAD_UTF8 = new Mistake('invalid UTF-8 sequence in string');
export const EXPECTING_VALUE = new Mistake('expecting value');
const PREMATURE_END = new Mistake('premature EOI');
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
/** Beyond this many bytes a call of the platform is faster than a loop. */
const SHORT_TEXT = 24;
/** The text of a few ASCII bytes from `start` to `end` without a backslash, or null. */
function shortText(bytes, start, end) {
    if (end - start > SHORT_TEXT)
        return null;
    let text = '';
    for (let at = start; at < end; at += 1) {
        const byte = bytes[at];
        if (byte >= 0x80 || byte === BACKSLASH)
            return null;
        text += String.fromCharCode(byte);
    }
    return text;
}
function hexDigit(byte) {
    if (byte === undefined)
        return -1;
    if (byte >= 0x30 && byte <= 0x39)
        return byte - 0x30;
    const letter = byte | 0x20;
    return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : -1;
}
/** Four hexadecimal digits at `index`, or −1. */
function hexUnit(bytes, index) {
    let unit = 0;
    for (let at = index; at < index + 4; at += 1) {
        const digit = hexDigit(bytes[at]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}
/** The text between the quotes of a string token. */
export function decodeString(token) {
    const short = shortText(token, 1, token.length - 1);
    if (short !== null)
        return short;
    const inner = token.subarray(1, token.length - 1);
    let whole = '';
    let plain = 0;
    for (let index = backslash(inner, 0); index >= 0; index = backslash(inner, plain)) {
        const before = index === plain ? '' : decodeUtf8(inner.subarray(plain, index));
        if (before instanceof Mistake)
            return before;
        const escape = inner[index + 1];
        const isUnicode = escape === 0x75;
        const text = isUnicode ? unicodeEscape(token, index + 3) : (ESCAPES[escape] ?? BAD_ESCAPE);
        if (text instanceof Mistake)
            return text;
        whole += before + text;
        plain = index + 2 + (isUnicode ? (text.length === 2 ? 10 : 4) : 0);
    }
    const last = decodeUtf8(plain === 0 ? inner : inner.subarray(plain));
    return last instanceof Mistake ? last : whole + last;
}
function backslash(bytes, from) {
    return bytes[from] === BACKSLASH ? from : bytes.indexOf(BACKSLASH, from);
}
/** What follows `\u` at `index` of the token: two units for a pair of surrogates, else one. */
function unicodeEscape(token, index) {
    const first = hexUnit(token, index);
    const isHigh = first >= 0xd800 && first <= 0xdbff;
    if (!isHigh) {
        const isCharacter = first >= 0 && (first < 0xdc00 || first > 0xdfff);
        const text = isCharacter ? String.fromCharCode(first) : '';
        return isCharacter && !NONCHARACTER.test(text) ? text : noCharacter(token, index);
    }
    const isPair = token[index + 4] === BACKSLASH && token[index + 5] === 0x75;
    const second = isPair ? hexUnit(token, index + 6) : -1;
    if (second < 0xdc00 || second > 0xdfff)
        return noCharacter(token, index);
    const text = String.fromCharCode(first, second);
    return NONCHARACTER.test(text) ? noCharacter(token, index, 10) : text;
}
function noCharacter(token, index, length = 4) {
    const text = textOf(token.subarray(index, index + length));
    return new Mistake(`\\u${text} is not a valid Unicode character`);
}
const NONCHARACTER = /\p{Noncharacter_Code_Point}/u;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Strict UTF-8 of characters, but for the two-byte form of NUL, which is accepted. */
function decodeUtf8(bytes) {
    const short = shortText(bytes, 0, bytes.length);
    if (short !== null)
        return short;
    try {
        const text = utf8.decode(bytes);
        return NONCHARACTER.test(text) ? BAD_UTF8 : text;
    }
    catch {
        const text = Buffer.from(bytes).toString('latin1');
        if (!text.includes('\xc0\x80'))
            return BAD_UTF8;
        const parts = [];
        for (const part of text.split('\xc0\x80')) {
            const decoded = decodeUtf8(Buffer.from(part, 'latin1'));
            if (decoded instanceof Mistake)
                return decoded;
            parts.push(decoded);
        }
        return parts.join('\0');
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
        const token = this.#tokens[this.#next];
        if (token === undefined)
            return PREMATURE_END;
        this.#next += 1;
        const { bytes } = token;
        switch (token.kind) {
            case 'string':
                return decodeString(bytes);
            case 'integer':
                return decodeInteger(bytes);
            case 'double':
                return new JsonDouble(Number(textOf(bytes)));
            case 'keyword':
                return keyword(bytes);
            default:
                if (bytes[0] === 0x7b)
                    return this.#object();
                return bytes[0] === 0x5b ? this.#list() : EXPECTING_VALUE;
        }
    }
    #object() {
        // No prototype: a member named __proto__ is a member like any other.
        const result = Object.create(null);
        if (this.#accept(0x7d))
            return result;
        for (;;) {
            const key = this.value();
            if (key instanceof Mistake)
                return key;
            if (typeof key !== 'string')
                return BAD_KEY;
            if (!this.#accept(0x3a))
                return this.#lacking(NO_COLON);
            const value = this.value();
            if (value instanceof Mistake)
                return value;
            if (key in result)
                return DUPLICATE_KEY;
            result[key] = value;
            if (this.#accept(0x7d))
                return result;
            if (!this.#accept(0x2c))
                return this.#lacking(NO_SEPARATOR_IN_DICT);
        }
    }
    #list() {
        const result = [];
        if (this.#accept(0x5d))
            return result;
        for (;;) {
            const value = this.value();
            if (value instanceof Mistake)
                return value;
            result.push(value);
            if (this.#accept(0x5d))
                return result;
            if (!this.#accept(0x2c))
                return this.#lacking(NO_SEPARATOR_IN_LIST);
        }
    }
    /** The end of the tokens is what is wrong where nothing follows. */
    #lacking(mistake) {
        return this.#next < this.#tokens.length ? mistake : PREMATURE_END;
    }
    #accept(structure) {
        const token = this.#tokens[this.#next];
        if (token?.kind !== 'structure' || token.bytes[0] !== structure)
            return false;
        this.#next += 1;
        return true;
    }
}
const BAD_KEY = new Mistake('key is not a string in object');
const NO_COLON = new Mistake('missing : in object pair');
const DUPLICATE_KEY = new Mistake('duplicate key');
const NO_SEPARATOR_IN_DICT = new Mistake('expected separator in dict');
const NO_SEPARATOR_IN_LIST = new Mistake('expected separator in list');
function keyword(bytes) {
    const text = shortText(bytes, 0, bytes.length) ?? textOf(bytes);
    if (text === 'true')
        return true;
    if (text === 'false')
        return false;
    return text === 'null' ? null : new Mistake(`invalid keyword '${text}'`);
}
/** The value of a whole message. */
export function parseTokens(tokens) {
    return new Parser(tokens).value();
}
/** JSON text of member `name` of the object that `tokens` spell without mistakes; or null. */
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
    if (token.kind === 'string') {
        const string = decodeString(token.bytes);
        assert(typeof string === 'string', 'the tokens were parsed before');
        return quote(string);
    }
    const text = textOf(token.bytes);
    return text === ',' || text === ':' ? `${text} ` : text;
}
