// SPDX-License-Identifier: Apache-2.0
// The transaction command: several changes that happen together or not at all.
//
// The data of an action are the arguments of the command of the same name. Old names of actions
// stand for the new ones.
import { blockDirtyBitmap } from '../block/options.js';
import { jobOptions } from '../jobs/options-catalog.js';
import { command, enumeration, list, optional, struct, union } from '../schema/index.js';
import { blockDirtyBitmapAddOptions, blockDirtyBitmapMergeOptions, looseBitmapMergeOptions, } from './bitmap.js';
import { blockdevSnapshotOptions, blockdevSnapshotSyncOptions } from './block-change.js';
import { blockdevSnapshotInternalOptions } from './block-change.js';
function wrap(name, data) {
    return struct(name, { data });
}
const bitmapAction = wrap('BlockDirtyBitmapWrapper', blockDirtyBitmap);
const branches = {
    abort: wrap('AbortWrapper', struct('Abort', {})),
    'block-dirty-bitmap-add': wrap('BlockDirtyBitmapAddWrapper', blockDirtyBitmapAddOptions),
    'block-dirty-bitmap-remove': bitmapAction,
    'block-dirty-bitmap-clear': bitmapAction,
    'block-dirty-bitmap-enable': bitmapAction,
    'block-dirty-bitmap-disable': bitmapAction,
    'block-dirty-bitmap-merge': wrap('BlockDirtyBitmapMergeWrapper', blockDirtyBitmapMergeOptions),
    'x-block-dirty-bitmap-enable': bitmapAction,
    'x-block-dirty-bitmap-disable': bitmapAction,
    'x-block-dirty-bitmap-merge': wrap('XBlockDirtyBitmapMergeWrapper', looseBitmapMergeOptions),
    'blockdev-backup': wrap('BlockdevBackupWrapper', jobOptions.backup),
    'drive-backup': wrap('DriveBackupWrapper', jobOptions['drive-backup']),
    'blockdev-snapshot': wrap('BlockdevSnapshotWrapper', blockdevSnapshotOptions),
    'blockdev-snapshot-internal-sync': wrap('BlockdevSnapshotInternalWrapper', blockdevSnapshotInternalOptions),
    'blockdev-snapshot-sync': wrap('BlockdevSnapshotSyncWrapper', blockdevSnapshotSyncOptions),
};
const OLD_NAME = { features: ['deprecated', 'unstable'] };
const transactionAction = union('TransactionAction', {
    discriminator: 'type',
    tagName: 'TransactionActionKind',
    branches,
    tagFacts: {
        'drive-backup': { features: ['deprecated'] },
        'x-block-dirty-bitmap-enable': OLD_NAME,
        'x-block-dirty-bitmap-disable': OLD_NAME,
        'x-block-dirty-bitmap-merge': OLD_NAME,
    },
});
const transactionProperties = struct('TransactionProperties', {
    'completion-mode': optional(enumeration('ActionCompletionMode', ['individual', 'grouped'])),
});
export const transactionCommand = command({
    name: 'transaction',
    since: '1.1',
    doc: 'Does all of the actions; when one fails nothing has changed but files that were made.',
    args: { actions: list(transactionAction), properties: optional(transactionProperties) },
});
