// SPDX-License-Identifier: Apache-2.0
// A stream of JSON messages over bytes: neither lines nor packets matter.
//
// Tokens are collected until brackets balance, then the message is parsed; every broken message
// gives exactly one error and the stream goes on. Depth, tokens and bytes of a message are bounded
// by QMP_LIMITS before anything is built from them.

import { QMP_LIMITS } from '../base/index.js';
import type { JsonValue } from '../base/index.js';
import { Buffer } from 'node:buffer';
import { JsonLexer } from './json-lexer.js';
import type { Token } from './json-lexer.js';
import { EXPECTING_VALUE, memberText, Mistake, nesting, parseTokens } from './json-parser.js';
import { quoteJson } from './json-writer.js';

export type JsonMessage =
  | {
      readonly ok: true;
      readonly value: JsonValue;
      /** JSON text of the top-level member `id`, numbers as the sender spelt them. */
      readonly idText: string | null;
    }
  | { readonly ok: false; readonly error: string };

/** What is wrong with a text that parseJson() was given. */
export class JsonSyntaxError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'JsonSyntaxError';
  }
}

export interface JsonStreamLimits {
  readonly depth: number;
  readonly messageBytes: number;
  readonly tokens: number;
}

/** A message that begins with what ends or separates. */
const NO_VALUE: JsonMessage = { ok: false, error: EXPECTING_VALUE.message };

const DEFAULT_LIMITS: JsonStreamLimits = {
  depth: QMP_LIMITS.jsonDepth,
  messageBytes: QMP_LIMITS.jsonMessageBytes,
  tokens: QMP_LIMITS.jsonTokens,
};

export class JsonStream {
  #tokens: Token[] = [];
  #bytes = 0;
  #braces = 0;
  #brackets = 0;
  readonly #lexer: JsonLexer;
  readonly #emit: (message: JsonMessage) => void;
  readonly #limits: JsonStreamLimits;

  constructor(emit: (message: JsonMessage) => void, limits: JsonStreamLimits = DEFAULT_LIMITS) {
    this.#emit = emit;
    this.#limits = limits;
    this.#lexer = new JsonLexer(limits.messageBytes, (token) => this.#token(token));
  }

  /** Calls back for each message that these bytes complete, in order. */
  feed(bytes: Uint8Array): void {
    this.#lexer.feed(bytes);
  }

  /** Ends the stream: what is left over is a last message or an error. */
  end(): void {
    this.#lexer.end();
    if (this.#tokens.length > 0) this.#parse();
  }

  #token(token: Token): void {
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
    if (!open || this.#braces < 0 || this.#brackets < 0) this.#parse();
  }

  #count(token: Token): void {
    const change = nesting(token);
    if (change === 0) return;
    const byte = token.bytes[0];
    if (byte === 0x7b || byte === 0x7d) this.#braces += change;
    else this.#brackets += change;
  }

  #parse(): void {
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

  #fail(error: string): void {
    this.#reset();
    this.#emit({ ok: false, error });
  }

  #reset(): void {
    if (this.#tokens.length > 0) this.#tokens = [];
    this.#bytes = 0;
    this.#braces = 0;
    this.#brackets = 0;
  }
}

const STRAY_BYTES = 1024;
const [QUOTE, APOSTROPHE] = Buffer.from(`"'`);

/** What single bytes that begin nothing are answered with: floods consist of them. */
const STRAY: readonly JsonMessage[] = Array.from({ length: 256 }, (_, byte) =>
  refusedStray(Uint8Array.of(byte)),
);

function strayMessage(bytes: Uint8Array): JsonMessage {
  return bytes.length === 1 ? (STRAY[bytes[0] as number] as JsonMessage) : refusedStray(bytes);
}

/** Shows the broken token up to a NUL; of a string, which may be a secret, only its beginning. */
function refusedStray(bytes: Uint8Array): JsonMessage {
  const isString = bytes[0] === QUOTE || bytes[0] === APOSTROPHE;
  const shown = Buffer.from(bytes.subarray(0, isString ? 1 : STRAY_BYTES));
  const nul = shown.indexOf(0);
  const text = shown.subarray(0, nul < 0 ? shown.length : nul).toString('utf8');
  return { ok: false, error: `JSON parse error, stray '${text}'` };
}

/** One whole JSON text; throws JsonSyntaxError. */
export function parseJson(text: string): JsonValue {
  const messages: JsonMessage[] = [];
  const stream = new JsonStream((message) => messages.push(message));
  stream.feed(Buffer.from(text, 'utf8'));
  stream.end();
  const failed = messages.find(({ ok }) => !ok);
  if (failed?.ok === false) throw new JsonSyntaxError(failed.error);
  const [first, second] = messages;
  if (first?.ok !== true) throw new JsonSyntaxError('Expecting a JSON value');
  if (second !== undefined) throw new JsonSyntaxError('Expecting at most one JSON value');
  return first.value;
}
