// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { expect, it } from 'vitest';

import { Permission } from '../../../src/base/index.js';
import { findConflict } from '../../../src/host/index.js';
import { LockTable } from '../../../src/host/locks/lock-table.js';
import { declaredIn } from '../../../src/host/locks/proc-locks.js';

const file = { identity: { device: '1', inode: '2' }, path: 'disk.img' };
const { consistentRead, write, resize } = Permission;
const WRITER = { taken: consistentRead | write | resize, unshared: write | resize };
const READER = { taken: consistentRead, unshared: write | resize };

it('a writer keeps a reader out that does not share write, and the text names the byte met', () => {
  const table = new LockTable();
  const [one, two] = [{}, {}];
  table.set(file.identity, one, WRITER);
  expect(() => table.check(file, two, READER)).toThrow('Failed to get shared "write" lock');
  expect(() => table.check(file, two, WRITER)).toThrow('Failed to get "write" lock');
});

it('readers share a file, and any name of it', () => {
  const table = new LockTable();
  table.set(file.identity, {}, READER);
  table.check({ ...file, path: 'link.img' }, {}, READER);
  expect(() => table.check({ ...file, path: 'link.img' }, {}, WRITER)).toThrow('"write" lock');
});

it('a holder does not conflict with itself', () => {
  const table = new LockTable();
  const owner = {};
  table.set(file.identity, owner, WRITER);
  table.check(file, owner, WRITER);
});

it('declaring nothing forgets the file', () => {
  const table = new LockTable();
  const owner = {};
  table.set(file.identity, owner, WRITER);
  table.set(file.identity, owner, { taken: 0, unshared: 0 });
  expect(table.size).toBe(0);
});

it('two requests conflict if and only if one takes what the other does not share', () => {
  const mask = fc.nat(15);
  const request = fc.record({ taken: mask, unshared: mask });
  fc.assert(
    fc.property(request, request, (one, two) => {
      const meets = ((one.taken & two.unshared) | (one.unshared & two.taken)) !== 0;
      expect(findConflict(one, two) !== null).toBe(meets);
      expect(findConflict(two, one) !== null).toBe(meets);
    }),
  );
});

it('rows of /proc/locks give the declarations on one file', () => {
  const rows = [
    '1: OFDLCK ADVISORY  READ -1 fe:00:2146559 203 203',
    '2: OFDLCK ADVISORY  READ -1 fe:00:2146559 100 101',
    '3: OFDLCK ADVISORY  READ -1 fe:00:99 102 102',
    '4: OFDLCK ADVISORY  READ -1 fd:00:2146559 103 103',
    '5: POSIX  ADVISORY  WRITE 77 fe:00:2146559 201 201',
    'lock:\t6: OFDLCK  ADVISORY  READ -1 fe:00:2146559 201 EOF',
  ];
  const identity = { device: String(0xfe00), inode: '2146559' };
  expect(declaredIn(rows.slice(0, 5), identity)).toEqual({ taken: 0b0011, unshared: 0b1000 });
  expect(declaredIn(rows, identity)).toEqual({ taken: 0b0011, unshared: 0b1110 });
  expect(declaredIn([], identity)).toEqual({ taken: 0, unshared: 0 });
});
