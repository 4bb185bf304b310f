// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { createDisplay, type JobResult } from '../../../src/cli/tour/display.js';

const MIB = 1024 * 1024;

function show(mode: 'bars' | 'lines' | 'json') {
  let text = '';
  const display = createDisplay(mode, (part) => {
    text += part;
  });
  return { display, text: () => text };
}

describe('the display of the tour', () => {
  it('prints one plain line for each quarter when piped', () => {
    const { display, text } = show('lines');
    for (let done = 0; done <= 64; done += 1) {
      display.progress({ job: 'stream', done: done * MIB, total: 64 * MIB });
    }
    expect(text().trimEnd().split('\n')).toEqual([
      '  stream: 25 % (16 of 64 MiB)',
      '  stream: 50 % (32 of 64 MiB)',
      '  stream: 75 % (48 of 64 MiB)',
      '  stream: 100 % (64 of 64 MiB)',
    ]);
  });
  it('redraws bars in place and leaves a finished one standing', () => {
    const { display, text } = show('bars');
    display.progress({ job: 'backup', done: 1, total: 2 });
    display.progress({ job: 'backup', done: 2, total: 2 });
    display.note('after');
    expect(text()).toContain(`  50 %\n\x1b[1A\x1b[0J`);
    expect(text().split('\x1b[0J')[1]).toMatch(/^ {2}backup +█{32} 100 %\nafter\n$/);
  });
  it('writes one JSON value a line when asked', () => {
    const { display, text } = show('json');
    const result: JobResult = { job: 'j', bytes: 1, seconds: 1, limit: null, verified: null };
    display.note('begin');
    display.results([result]);
    expect(text().trim().split('\n').map((line) => JSON.parse(line) as unknown)).toEqual([
      { event: 'note', text: 'begin' },
      { event: 'result', ...result },
    ]);
  });
  it('says NO in the table when a result differs', () => {
    const { display, text } = show('lines');
    display.results([{ job: 'stream', bytes: MIB, seconds: 2, limit: MIB, verified: null }]);
    expect(text()).toMatch(/stream {2}1 MiB {2}2\.00 +0\.5 +1 MiB\/s {2}NO/);
  });
});
