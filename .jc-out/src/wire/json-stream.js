// SPDX-License-Identifier: Apache-2.0
// A stream of JSON messages over bytes: neither lines nor packets matter.
//
// Tokens are collected until brackets balance, then the message is parsed; every broken message
// gives exactly one error and the stream goes on. Depth, tokens and bytes of a message are bounded
// by QMP_LIMITS before anything is built from them.
import { QMP_LIMITS } from '../base/index.js';
import { Buffer } from 'node:buffer';
import { JsonLexer } from './json-lexer.js';
import { loneTokenMistake, memberText, nesting, parseTokens } from './json-parser.js';
import { JsonSyntaxError } from './json-parser.js';
import { quoteJson } from './json-writer.js';
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
            this.#fail(`JSON parse error, stray '${strayText(token.bytes)}'`);
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
        const [first] = tokens;
        this.#reset();
        const mistake = tokens.length === 1 && first !== undefined ? loneTokenMistake(first) : null;
        if (mistake !== null) {
            this.#emit({ ok: false, error: mistake });
            return;
        }
        let message;
        try {
            const value = parseTokens(tokens);
            const isObject = first?.bytes[0] === 0x7b;
            const idText = isObject ? memberText(tokens, 'id', quoteJson) : null;
            message = { ok: true, value, idText };
        }
        catch (error) {
            if (!(error instanceof JsonSyntaxError))
                throw error;
            message = { ok: false, error: error.message };
        }
        this.#emit(message);
    }
    #fail(error) {
        this.#reset();
        this.#emit({ ok: false, error });
    }
    #reset() {
        this.#tokens = [];
        this.#bytes = 0;
        this.#braces = 0;
        this.#brackets = 0;
    }
}
const STRAY_BYTES = 1024;
/** The broken token up to a NUL, as text that is safe to print. */
function strayText(bytes) {
    const [only] = bytes;
    // What floods consist of; a byte of 0x80 or more alone is no character.
    if (bytes.length === 1 && only !== undefined && only > 0) {
        return only < 0x80 ? String.fromCharCode(only) : '\ufffd';
    }
    const shown = Buffer.from(bytes.subarray(0, STRAY_BYTES));
    const nul = shown.indexOf(0);
    return shown.subarray(0, nul < 0 ? shown.length : nul).toString('utf8');
}
/** One whole JSON text; throws JsonSyntaxError. */
export function parseJson(text) {
    const messages = [];
    const stream = new JsonStream((message) => messages.push(message));
    stream.feed(Buffer.from(text, 'utf8'));
    stream.end();
    const [first, second] = messages;
    if (first === undefined)
        throw new JsonSyntaxError('expecting value');
    if (!first.ok)
        throw new JsonSyntaxError(first.error.replace(/^JSON parse error, /, ''));
    if (second !== undefined)
        throw new JsonSyntaxError('trailing content');
    return first.value;
}
