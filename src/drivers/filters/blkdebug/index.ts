// SPDX-License-Identifier: Apache-2.0
// The filter `blkdebug`: errors at chosen points, requests held there, and limits that the child
// does not have.

import { BlockError } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import type { DriverNode, OpenContext } from '../../../block/index.js';
import { readConfig } from './config-file.js';
import { BlkdebugNode } from './node.js';
import type { BlkdebugOptions } from './options.js';

const LIMIT_OPTIONS = [
  'align',
  'max-transfer',
  'opt-write-zero',
  'max-write-zero',
  'opt-discard',
  'max-discard',
];

export const blkdebug = defineDriver<BlkdebugOptions>({
  name: 'blkdebug',
  kind: 'filter',
  children: { image: { role: ChildRole.filtered | ChildRole.primary, required: true } },
  supports: {
    read: 'native',
    write: 'native',
    writeZeroes: 'native',
    discard: 'native',
    flush: 'native',
    blockStatus: 'native',
    truncate: 'pass',
    planExtents: 'none',
    reserve: 'none',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  strongOptions: ['config', 'inject-error', 'set-state', ...LIMIT_OPTIONS],
  nameOptions: ['config'],
  filename(child, options) {
    const image = child('image');
    return image === null ? null : `blkdebug:${options.config ?? ''}:${image}`;
  },
  reopenOptions: [],
  open: openBlkdebug,
});

/** Lists that have members or are left out, in the order in which they are refused. */
const LISTS = ['set-state', 'inject-error', 'take-child-perms', 'unshare-child-perms'] as const;

function refuseEmptyLists(options: BlkdebugOptions): void {
  const empty = LISTS.find((name) => options[name]?.length === 0);
  if (empty === undefined) return;
  const text = `Block protocol 'blkdebug' doesn't support the option '${empty}'`;
  throw new BlockError('invalid-option', text);
}

async function openBlkdebug(context: OpenContext, options: BlkdebugOptions): Promise<DriverNode> {
  refuseEmptyLists(options);
  const { config } = options;
  const image = context.child('image');
  if (config === undefined || config === '') return new BlkdebugNode(image, options);
  const read = await readConfig(context.host, config);
  return new BlkdebugNode(image, {
    ...options,
    'inject-error': [...read['inject-error'], ...(options['inject-error'] ?? [])],
    'set-state': [...read['set-state'], ...(options['set-state'] ?? [])],
  });
}
