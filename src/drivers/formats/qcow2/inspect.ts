// SPDX-License-Identifier: Apache-2.0
// A qcow2 image with a feature that is not supported, opened only to be reported by info.
//
// Size, header facts and the backing link are there; every attempt at its data is refused by the
// feature's name. Nothing but the header and the lists of snapshots and bitmaps is read.

import { BlockError } from '../../../base/index.js';
import type {
  BackingLink,
  BlockStatus,
  CheckResult,
  DriverInfo,
  DriverNode,
  NodeLimits,
} from '../../../block/index.js';
import { unsupportedFeature } from './features.js';
import type { Qcow2Header } from './header.js';
import { infoOf } from './info.js';
import type { Listings } from './info.js';

export class InspectedQcow2 implements DriverNode {
  readonly length: number;
  readonly limits: NodeLimits;
  readonly #header: Qcow2Header;
  readonly #listings: Listings;

  constructor(header: Qcow2Header, listings: Listings) {
    this.#header = header;
    this.#listings = listings;
    this.length = header.fields.size;
    const { clusterSize } = header.geometry;
    this.limits = {
      requestAlignment: 1,
      maxTransfer: 0,
      optimalZeroes: clusterSize,
      optimalDiscard: clusterSize,
    };
  }

  read(): never {
    throw this.#refusal();
  }

  blockStatus(): BlockStatus {
    throw this.#refusal();
  }

  backingLink(): BackingLink | null {
    const { backingFile, backingFormat } = this.#header;
    return backingFile === null ? null : { file: backingFile, format: backingFormat };
  }

  check(): Promise<CheckResult> {
    return Promise.reject(this.#refusal());
  }

  info(): DriverInfo {
    return infoOf(this.#header, this.#listings);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #refusal(): BlockError {
    return new BlockError('unsupported', unsupportedFeature(this.#header) ?? 'not supported');
  }
}
