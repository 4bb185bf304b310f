// SPDX-License-Identifier: Apache-2.0
// Events that a bad disk could send by the thousand go out once in a second.
import { describe, expect, it } from 'vitest';

import { ManualClock } from '../../../src/base/index.js';
import { EventBus } from '../../../src/engine/events.js';

function listening(): { clock: ManualClock; bus: EventBus; heard: string[] } {
  const clock = new ManualClock();
  const bus = new EventBus(clock);
  const heard: string[] = [];
  bus.subscribe(({ name, data, at }) => {
    heard.push([name, data['node-name'], data['sector-num'], at / 1000].join(' '));
  });
  return { clock, bus, heard };
}

const bad = (node: string, sector: number): Record<string, unknown> => ({
  'node-name': node,
  'sector-num': sector,
});

describe('events', () => {
  it('of a bad child: the first goes out at once, then the last of each second', () => {
    const { clock, bus, heard } = listening();
    bus.emit('QUORUM_REPORT_BAD', bad('a', 1));
    clock.advance(300);
    bus.emit('QUORUM_REPORT_BAD', bad('a', 2));
    bus.emit('QUORUM_REPORT_BAD', bad('a', 3));
    bus.emit('QUORUM_REPORT_BAD', bad('b', 4));
    expect(heard).toEqual(['QUORUM_REPORT_BAD a 1 0', 'QUORUM_REPORT_BAD b 4 300']);
    clock.advance(700);
    expect(heard.slice(2)).toEqual(['QUORUM_REPORT_BAD a 3 300']);
    clock.advance(500);
    bus.emit('QUORUM_REPORT_BAD', bad('a', 5));
    expect(heard).toHaveLength(3);
    clock.advance(500);
    expect(heard.slice(3)).toEqual(['QUORUM_REPORT_BAD a 5 1500']);
    clock.advance(5000);
    bus.emit('QUORUM_REPORT_BAD', bad('a', 6));
    expect(heard.slice(4)).toEqual(['QUORUM_REPORT_BAD a 6 7000']);
  });

  it('of failures are one kind, whichever quorum fails; others are never held back', () => {
    const { bus, heard } = listening();
    for (const reference of ['q', 'r']) bus.emit('QUORUM_FAILURE', { reference });
    for (const sector of [1, 2]) bus.emit('BLOCK_JOB_ERROR', { 'sector-num': sector });
    expect(heard).toHaveLength(3);
  });

  it('held back at the end are dropped, and no timer stays', () => {
    const { clock, bus, heard } = listening();
    bus.emit('QUORUM_REPORT_BAD', bad('a', 1));
    bus.emit('QUORUM_REPORT_BAD', bad('a', 2));
    bus.close();
    expect(clock.pendingTimers).toBe(0);
    clock.advance(5000);
    expect(heard).toHaveLength(1);
  });
});
