// SPDX-License-Identifier: Apache-2.0
// What a backup is asked to do: its arguments checked in the reference's order, before anything is
// changed.
import { BlockError } from '../../base/index.js';
import { checkBitmapUsable, findBitmap, requireOperation } from '../../block/index.js';
import { copyUnit } from '../../block/copy/index.js';
import { requireFilterName } from '../start.js';
const DEFAULT_WORKERS = 64;
const MAX_WORKERS = 2 ** 31 - 1;
export function planBackup(registry, args, { source, target, ownsTarget }) {
    const { sync, bitmap } = syncMode(source, args);
    if (source === target) {
        throw new BlockError('invalid-option', 'Source and target cannot be the same');
    }
    const compress = args.compress ?? false;
    if (compress && !canCompress(target)) {
        // The name of a device would follow; nodes have none.
        throw new BlockError('unsupported', 'Compression is not supported for this drive ');
    }
    requireOperation(source, 'backup-source');
    requireOperation(target, 'backup-target');
    const workers = workersOf(args);
    const chunk = chunkOf(args);
    if (bitmap !== null && bitmap.mode !== 'never')
        checkBitmapUsable(bitmap.bitmap, 'change');
    if (source.length !== target.length) {
        throw new BlockError('invalid-option', 'Source and target image have different sizes');
    }
    requireFilterName(registry, args['filter-node-name']);
    const discardsSource = args['discard-source'] ?? false;
    if (discardsSource)
        requireWritable(source);
    const unit = copyUnit(target, args['x-perf']?.['min-cluster-size']);
    requireChunk(chunk, unit);
    return {
        source,
        target,
        sync,
        bitmap,
        compress,
        discardsSource,
        unit,
        hostCopies: !compress && (args['x-perf']?.['use-copy-range'] ?? false),
        workers,
        maxChunk: chunk === 0 ? Infinity : chunk,
        filterName: args['filter-node-name'] ?? null,
        onSourceError: args['on-source-error'] ?? 'report',
        onTargetError: args['on-target-error'] ?? 'report',
        ownsTarget,
    };
}
function canCompress(target) {
    let node = target;
    while (node !== null && node.driver.supports.compressedWrite === 'pass') {
        node = node.filtered ?? node.primary;
    }
    return node?.driver.supports.compressedWrite === 'native';
}
/** `incremental` is `bitmap` that is cleared on success. */
function syncMode(source, args) {
    const { sync, bitmap: name } = args;
    const usesBits = sync === 'bitmap' || sync === 'incremental';
    const isIncremental = sync === 'incremental';
    const mode = args['bitmap-mode'];
    if (usesBits && name === undefined) {
        throw invalid(`must provide a valid bitmap name for '${sync}' sync mode`);
    }
    if (isIncremental && mode !== undefined && mode !== 'on-success') {
        throw invalid("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
    }
    if (name === undefined) {
        if (mode !== undefined)
            throw invalid('Cannot specify bitmap sync mode without a bitmap');
        return { sync: sync, bitmap: null };
    }
    const bitmap = findBitmap(source, name);
    if (bitmap === null) {
        throw new BlockError('not-found', `Bitmap '${name}' could not be found`);
    }
    const known = isIncremental ? 'on-success' : mode;
    if (known === undefined) {
        throw invalid('Bitmap sync mode must be given when providing a bitmap');
    }
    checkBitmapUsable(bitmap, 'use');
    if (sync === 'none') {
        throw invalid("sync mode 'none' does not produce meaningful bitmap outputs");
    }
    if (known === 'never' && !usesBits) {
        throw invalid("Bitmap sync mode 'never' has no meaningful effect when combined with sync mode " +
            `'${sync}'`);
    }
    return { sync: usesBits ? 'bitmap' : sync, bitmap: { bitmap, mode: known } };
}
function invalid(text) {
    return new BlockError('invalid-option', text);
}
/** Its edge would be refused as well, but only when the job is there. */
function requireWritable(source) {
    if (!source.readOnly)
        return;
    throw new BlockError('permission', 'Block node is read-only', { node: source.name });
}
function workersOf(args) {
    const workers = Number(args['x-perf']?.['max-workers'] ?? DEFAULT_WORKERS);
    if (workers >= 1 && workers <= MAX_WORKERS)
        return workers;
    throw invalid(`max-workers must be between 1 and ${MAX_WORKERS}`);
}
function chunkOf(args) {
    const chunk = Number(args['x-perf']?.['max-chunk'] ?? 0);
    if (chunk >= 0)
        return chunk;
    throw invalid('max-chunk must be zero (which means no limit) or positive');
}
function requireChunk(chunk, unit) {
    if (chunk === 0 || chunk >= unit)
        return;
    throw invalid(`Required max-chunk (${chunk}) is less than backup cluster size (${unit})`);
}
