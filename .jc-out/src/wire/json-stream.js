// SPDX-License-Identifier: Apache-2.0
// A stream of JSON messages over bytes: neither lines nor packets matter.
//
// Tokens are collected until brackets balance, then the message is parsed; every broken message
// gives exactly one error and the stream goes on. Depth, tokens and bytes of a message are bounded
// by QMP_LIMITS before anything is built from them.
import { QMP_LIMITS } from '../base/index.js';
import { Buffer } from 'node:buffer';
import { JsonLexer } from './json-lexer.js';
import { EXPECTING_VALUE, memberText, Mistake, nesting, parseTokens } from './json-parser.js';
import { quoteJson } from './json-writer.js';
/** What is wrong with a text that parseJson() was given. */
export class JsonSyntaxError extends Error {
    constructor(message) {
        super(message);
        this.name = 'JsonSyntaxError';
    }
}
/** A message that begins with what ends or separates. */
const NO_VALUE = { ok: false, error: EXPECTING_VALUE.message };
const DEFAULT_LIMITS = {
    depth: QMP_LIMITS.jsonDepth,
    messageBytes: QMP_LIMITS.jsonMessageBytes,
    tokens: QMP_LIMITS.jsonTokens,
};
export class JsonStream {
    #tokens = [];
    #bytes = 0;
    #braces = 0;
    #brackets = 0;
    #lexer;
    #emit;
    #limits;
    constructor(emit, limits = DEFAULT_LIMITS) {
        this.#emit = emit;
        this.#limits = limits;
        this.#lexer = new JsonLexer(limits.messageBytes, (token) => this.#token(token));
    }
    /** Calls back for each message that these bytes complete, in order. */
    feed(bytes) {
        this.#lexer.feed(bytes);
    }
    /** Ends the stream: what is left over is a last message or an error. */
    end() {
        this.#lexer.end();
        if (this.#tokens.length > 0)
            this.#parse();
    }
    #token(token) {
        if (token.kind === 'error') {
            this.#reset();
            this.#emit(strayMessage(token.bytes));
            return;
        }
        if (this.#tokens.length === 0 && token.kind === 'structure' && nesting(token) <= 0) {
            this.#emit(NO_VALUE);
            return;
        }
        this.#bytes += token.bytes.length + 1;
        this.#count(token);
        if (token.kind === 'overflow' || this.#bytes > this.#limits.messageBytes) {
            this.#fail('JSON token size limit exceeded');
            return;
        }
        if (this.#tokens.length >= this.#limits.tokens) {
            this.#fail('JSON token count limit exceeded');
            return;
        }
        if (this.#braces + this.#brackets > this.#limits.depth) {
            this.#fail('JSON nesting depth limit exceeded');
            return;
        }
        this.#tokens.push(token);
        const open = this.#braces > 0 || this.#brackets > 0;
        if (!open || this.#braces < 0 || this.#brackets < 0)
            this.#parse();
    }
    #count(token) {
        const change = nesting(token);
        if (change === 0)
            return;
        const byte = token.bytes[0];
        if (byte === 0x7b || byte === 0x7d)
            this.#braces += change;
        else
            this.#brackets += change;
    }
    #parse() {
        const tokens = this.#tokens;
        this.#reset();
        const value = parseTokens(tokens);
        if (value instanceof Mistake) {
            this.#emit({ ok: false, error: value.message });
            return;
        }
        const isObject = tokens[0]?.bytes[0] === 0x7b;
        const idText = isObject ? memberText(tokens, 'id', quoteJson) : null;
        this.#emit({ ok: true, value, idText });
    }
    #fail(error) {
        this.#reset();
        this.#emit({ ok: false, error });
    }
    #reset() {
        if (this.#tokens.length > 0)
            this.#tokens = [];
        this.#bytes = 0;
        this.#braces = 0;
        this.#brackets = 0;
    }
}
const STRAY_BYTES = 1024;
/** What single bytes that begin nothing are answered with: floods consist of them. */
const STRAY = Array.from({ length: 256 }, (_, byte) => refusedStray(Uint8Array.of(byte)));
function strayMessage(bytes) {
    const [first = 0] = bytes;
    return bytes.length === 1 ? STRAY[first] : refusedStray(bytes);
}
/** Shows the broken token up to a NUL. */
function refusedStray(bytes) {
    const shown = Buffer.from(bytes.subarray(0, STRAY_BYTES));
    const nul = shown.indexOf(0);
    const text = shown.subarray(0, nul < 0 ? shown.length : nul).toString('utf8');
    return { ok: false, error: `JSON parse error, stray '${text}'` };
}
/** One whole JSON text; throws JsonSyntaxError. */
export function parseJson(text) {
    const messages = [];
    const stream = new JsonStream((message) => messages.push(message));
    stream.feed(Buffer.from(text, 'utf8'));
    stream.end();
    const [first, second] = messages;
    if (first === undefined)
        throw new JsonSyntaxError(EXPECTING_VALUE.message);
    if (!first.ok)
        throw new JsonSyntaxError(first.error);
    if (second !== undefined)
        throw new JsonSyntaxError('JSON parse error, trailing content');
    return first.value;
}
