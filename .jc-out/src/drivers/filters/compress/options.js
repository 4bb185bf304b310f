// SPDX-License-Identifier: Apache-2.0
// Options of `compress`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { struct } from '../../../schema/index.js';
export const compressOptions = struct('BlockdevOptionsGenericFormat', { file: blockdevRef });
