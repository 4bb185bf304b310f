// SPDX-License-Identifier: Apache-2.0
// `discard-source`: what has reached the target is discarded in the source.
//
// Order: the copy is written, the target is flushed, the source lets go. So at no moment, be it a
// power cut, are the bytes in neither. A source that nobody can write to (a snapshot beside its
// guest) ends with the program: there the target's flush is left out. Whoever discards holds the
// range, so no guest's write comes in between. An image makes room of what it discarded when it is
// flushed, hence now and then a flush of the source. A failure of either only frees no space.

import { COPY_LIMITS, toBlockError } from '../../base/index.js';
import { discardRequest } from '../../block/index.js';
import type { CopyFailure, NodeRef, Span } from '../../block/copy/index.js';
import { GroupFlush } from './group-flush.js';

export interface SourceDiscardEnds {
  readonly source: NodeRef;
  readonly target: NodeRef;
}

export class SourceDiscard {
  readonly #source: NodeRef;
  readonly #sourceFlush: GroupFlush;
  readonly #targetFlush: GroupFlush;
  /** Bytes discarded since the source was flushed. */
  #discarded = 0;

  constructor({ source, target }: SourceDiscardEnds) {
    this.#source = source;
    this.#sourceFlush = new GroupFlush(source);
    this.#targetFlush = new GroupFlush(target);
  }

  /** For ranges that are written to the target; a failure means that nothing was discarded. */
  async discard(ranges: readonly Span[]): Promise<CopyFailure | null> {
    if (this.#source.node.driver.supports.write !== 'none') {
      try {
        await this.#targetFlush.flush();
      } catch (error) {
        return { side: 'target', error: toBlockError(error) };
      }
    }
    for (const range of ranges) await this.#discardOne(range);
    if (this.#discarded >= COPY_LIMITS.discardedBytes) await this.makeRoom();
    return null;
  }

  async #discardOne({ offset, length }: Span): Promise<void> {
    try {
      await this.#source.node.discard(discardRequest(offset, length));
    } catch (error) {
      toBlockError(error);
    }
    this.#discarded += length;
  }

  /** What was discarded becomes free. */
  async makeRoom(): Promise<void> {
    if (this.#discarded === 0) return;
    this.#discarded = 0;
    try {
      await this.#sourceFlush.flush();
    } catch (error) {
      toBlockError(error);
    }
  }
}
