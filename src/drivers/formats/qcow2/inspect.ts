// SPDX-License-Identifier: Apache-2.0
// A qcow2 image that cannot be worked on, opened only to be reported: its key is not there, or the
// file ends before its tables.
//
// Size, header facts and the backing link are there; every attempt at its data is refused by the
// missing key's or table's name. Only a truncated file can be checked.

import { BlockError } from '../../../base/index.js';
import type {
  BackingLink,
  BlockStatus,
  CheckResult,
  Child,
  DriverInfo,
  DriverNode,
  NodeLimits,
} from '../../../block/index.js';
import { checkImage } from './check/index.js';
import { encryptionOf, keyMissing } from './encryption/index.js';
import { virtualSizeOf } from './header.js';
import type { Qcow2Header } from './header.js';
import { infoOf } from './info.js';
import type { Listings } from './info.js';

export class InspectedQcow2 implements DriverNode {
  readonly length: number;
  readonly limits: NodeLimits;
  readonly #header: Qcow2Header;
  readonly #listings: Listings;
  readonly #file: Pick<Child, 'node'>;

  constructor(file: Pick<Child, 'node'>, header: Qcow2Header, listings: Listings) {
    this.#file = file;
    this.#header = header;
    this.#listings = listings;
    this.length = virtualSizeOf(header);
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

  check(repair: 'none' | 'leaks' | 'all'): Promise<CheckResult> {
    const isRefused = repair !== 'none' || encryptionOf(this.#header) !== null;
    if (isRefused) return Promise.reject(this.#refusal());
    return checkImage(this.#file, this.#header, 'none');
  }

  info(): DriverInfo {
    return infoOf(this.#header, this.#listings);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #refusal(): BlockError {
    const path = this.#file.node.filename;
    if (encryptionOf(this.#header) !== null) {
      const { kind, message } = keyMissing();
      return new BlockError(kind, message, { path });
    }
    const reason = this.#header.truncated ?? 'the file is truncated';
    return new BlockError('corrupt-image', `${path}: ${reason}`, { path });
  }
}
