// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, it } from 'vitest';

import { nativeAddon } from '../../src/host/index.js';

const addon = nativeAddon();

it.skipIf(addon === null)('the native zero scan stops at the first byte that is not zero', () => {
  fc.assert(
    fc.property(fc.nat(3000), fc.nat(3000), fc.nat(7), (length, mark, skip) => {
      const bytes = new Uint8Array(length + skip).subarray(skip);
      if (mark < length) bytes[mark] = 1;
      expect(addon?.zeroPrefix(bytes)).toBe(Math.min(mark, length));
    }),
    { numRuns: 500 },
  );
});
