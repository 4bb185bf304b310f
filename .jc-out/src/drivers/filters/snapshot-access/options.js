// SPDX-License-Identifier: Apache-2.0
// Options of `snapshot-access`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { struct } from '../../../schema/index.js';
export const snapshotAccessOptions = struct('BlockdevOptionsGenericFormat', { file: blockdevRef });
