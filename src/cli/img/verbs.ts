// SPDX-License-Identifier: Apache-2.0
// The verbs by name, each loaded when it is used.

import type { Verb } from './verb.js';

const LOADERS: Readonly<Record<string, () => Promise<Verb>>> = {
  amend: async () => (await import('./amend.js')).amend,
  bench: async () => (await import('./bench.js')).bench,
  bitmap: async () => (await import('./bitmap/index.js')).bitmap,
  check: async () => (await import('./check.js')).check,
  compare: async () => (await import('./compare.js')).compare,
  commit: async () => (await import('./commit.js')).commit,
  convert: async () => (await import('./convert/index.js')).convert,
  create: async () => (await import('./create/index.js')).create,
  dd: async () => (await import('./dd.js')).dd,
  info: async () => (await import('./info/index.js')).info,
  luks: async () => (await import('./luks/index.js')).luks,
  map: async () => (await import('./map.js')).map,
  measure: async () => (await import('./measure.js')).measure,
  rebase: async () => (await import('./rebase.js')).rebase,
  resize: async () => (await import('./resize.js')).resize,
  snapshot: async () => (await import('./snapshot/index.js')).snapshot,
};

export const VERB_NAMES: readonly string[] = Object.keys(LOADERS);

/** Null when there is no verb of that name. */
export async function loadVerb(name: string): Promise<Verb | null> {
  const loader = Object.hasOwn(LOADERS, name) ? LOADERS[name] : undefined;
  return loader === undefined ? null : loader();
}
