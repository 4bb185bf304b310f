// SPDX-License-Identifier: Apache-2.0
// The filter `quorum`: several children that hold the same; what most of them say is right.
//
// The options are checked here, in the order and with the words of the reference; node.ts does the
// rest. With `fifo` nothing is voted on, so that the options about votes mean nothing there.
import { BlockError } from '../../../base/index.js';
import { ChildRole, defineDriver, looseFlag, looseNumber } from '../../../block/index.js';
import { permissionsOnChild, QuorumNode } from './node.js';
export const quorum = defineDriver({
    name: 'quorum',
    kind: 'filter',
    children: {},
    childLists: { children: { role: ChildRole.data, required: true, permissions: 'filter' } },
    strongOptions: ['vote-threshold', 'blkverify', 'rewrite-corrupted', 'read-pattern'],
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'native',
        discard: 'none',
        flush: 'native',
        blockStatus: 'native',
        truncate: 'none',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    checkOptions(options) {
        const { children = [] } = options;
        if (Array.isArray(children) && children.length > 0)
            rulesOf(options, children.length);
    },
    openingPermissions(options, parents) {
        return permissionsOnChild(rewritesOf(options), parents);
    },
    open(context, options) {
        const children = [...context.node.children.values()];
        const rules = rulesOf(options, children.length);
        const [first] = children;
        if (first === undefined || children.some(({ node }) => node.length !== first.node.length)) {
            throw new BlockError('io', 'Could not refresh total sector count: Input/output error', {
                node: context.node.name,
            });
        }
        return Promise.resolve(new QuorumNode(context, children, rules));
    },
});
function rewritesOf(options) {
    if (options['read-pattern'] === 'fifo')
        return false;
    return looseFlag('rewrite-corrupted', options['rewrite-corrupted']);
}
function rulesOf(options, count) {
    const threshold = looseNumber('vote-threshold', options['vote-threshold'], 0);
    // Kept in 32 bits by the reference, so that larger ones are cut there and refused here.
    if (threshold < 1 || threshold > 2 ** 31 - 1) {
        throw new BlockError('invalid-option', "Parameter 'vote-threshold' expects a value >= 1");
    }
    if (threshold > count) {
        throw new BlockError('invalid-option', 'threshold may not exceed children count');
    }
    const pattern = options['read-pattern'] ?? 'quorum';
    if (pattern !== 'quorum' && pattern !== 'fifo') {
        throw new BlockError('invalid-option', 'Please set read-pattern as fifo or quorum');
    }
    const verifies = looseFlag('blkverify', options.blkverify);
    const rewrites = looseFlag('rewrite-corrupted', options['rewrite-corrupted']);
    if (pattern === 'fifo')
        return { threshold, pattern, verifies: false, rewrites: false };
    if (verifies && (count !== 2 || threshold !== 2)) {
        throw new BlockError('invalid-option', 'blkverify=on can only be set if there are exactly two files and vote-threshold is 2');
    }
    if (verifies && rewrites) {
        throw new BlockError('invalid-option', 'rewrite-corrupted=on cannot be used with blkverify=on');
    }
    return { threshold, pattern, verifies, rewrites };
}
