// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import { ManualClock } from '../../../src/base/index.js';

describe('a clock that is moved', () => {
  it('jumps over idle timers, which fire when time has passed them', () => {
    const clock = new ManualClock();
    const fired: string[] = [];
    clock.afterIdle(10, () => fired.push('idle'));
    expect(clock.advanceToNext()).toBe(false);
    expect([clock.now(), clock.pendingTimers]).toEqual([0, 1]);
    clock.after(20, () => fired.push('due'));
    expect(clock.advanceToNext()).toBe(true);
    expect([clock.now(), fired]).toEqual([20, ['idle', 'due']]);
  });

  it('forgets a timer that is cancelled', () => {
    const clock = new ManualClock();
    const cancel = clock.afterIdle(10, () => expect.unreachable());
    cancel();
    clock.advance(100);
    expect(clock.pendingTimers).toBe(0);
  });
});
