// SPDX-License-Identifier: Apache-2.0
// The text of an option `--object`, which may hold a secret: what is wrong is told without it.

import { BlockError } from '../base/index.js';
import { parseKeyval } from '../schema/index.js';
import type { SourceForm } from '../schema/index.js';
import { JsonSyntaxError, parseJson } from '../wire/index.js';

/** `type,key=value,…`, or JSON when it begins with a brace; not validated. */
export function parseObject(text: string): { readonly tree: unknown; readonly form: SourceForm } {
  if (!text.startsWith('{')) return { tree: parseKeyval(text, 'qom-type'), form: 'keyval' };
  try {
    return { tree: parseJson(text), form: 'json' };
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    // What is no keyword may be a secret without its quotes.
    throw new BlockError('invalid-option', error.message.replace(/ '.*'$/s, ''));
  }
}
