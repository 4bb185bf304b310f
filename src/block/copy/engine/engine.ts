// SPDX-License-Identifier: Apache-2.0
// Who copies: an executor of lanes for all sessions, but for the sources that have their own.

import type { Node } from '../../node.js';
import type { LaneExecutor } from '../lane-executor.js';
import { CopySession } from './session.js';
import type { CopySpec } from './spec.js';

export class CopyEngine {
  readonly lanes: LaneExecutor;
  readonly #lanesFor: (node: Node) => LaneExecutor | null;

  /** `lanesFor`: who copies from a node, if not `lanes`; asked when a session begins. */
  constructor(options: {
    readonly lanes: LaneExecutor;
    readonly lanesFor?: (node: Node) => LaneExecutor | null;
  }) {
    this.lanes = options.lanes;
    this.#lanesFor = options.lanesFor ?? (() => null);
  }

  open(spec: CopySpec): CopySession {
    return new CopySession(this.#lanesFor(spec.source.node) ?? this.lanes, spec);
  }

  close(): Promise<void> {
    return this.lanes.close();
  }
}
