// SPDX-License-Identifier: Apache-2.0
// One action of a transaction: prepared in order, then committed in order or undone in reverse.

import type { ActionData, ActionName } from '../../api/index.js';
import type { Engine } from '../../engine/index.js';
import type { JobTransaction } from '../../jobs/index.js';

export interface ActionContext {
  readonly engine: Engine;
  /** Jobs end together; undefined: each by itself. */
  readonly jobs: JobTransaction | undefined;
}

/** What an action has done; nobody but later actions has seen it. One of the two follows, once. */
export interface PreparedAction {
  /** Cannot refuse any more. */
  commit?(): Promise<void> | void;
  /** Takes back what was done. */
  abort?(): Promise<void> | void;
  /** After a commit, when everybody may write again: what is to be over before the answer. */
  afterwards?(): Promise<void> | void;
}

/** Throws with nothing changed. */
export type Prepare<N extends ActionName> = (
  context: ActionContext,
  data: ActionData<N>,
) => Promise<PreparedAction> | PreparedAction;

export type ActionFamily<N extends ActionName> = { readonly [K in N]: Prepare<K> };
