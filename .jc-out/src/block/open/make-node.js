// SPDX-License-Identifier: Apache-2.0
// A node before it is open: what it inherits, its flags from the options, and its file name.
import { BlockError, toBlockError } from '../../base/index.js';
import { BlockNode } from '../block-node.js';
import { looseFlag } from './loose-options.js';
export function rootContext(policy) {
    return {
        policy,
        readOnly: policy.inspectOnly === true,
        autoReadOnly: false,
        unmap: policy.unmap === true,
        chain: [],
        guessedBacking: false,
        writeThrough: policy.writeThrough === true,
    };
}
export function openContextOf(graph, node) {
    return {
        host: graph.host,
        node,
        readOnly: node.readOnly,
        inspectOnly: node.inspectOnly,
        repairs: node.repairs,
        child(name) {
            const edge = node.edges.get(name);
            if (edge !== undefined)
                return edge;
            throw new BlockError('invalid-option', `Parameter '${name}' is missing`, {
                node: node.name,
            });
        },
        throttleGroup: graph.throttleGroup,
        findNode: (name) => graph.find(name),
        freezeChain: (base) => graph.freezeChain(node, base, node.name),
        emit: graph.onEvent,
        permissionsChanged: () => graph.refreshNode(node),
        reportCorruption: (report) => graph.onCorruption(node, report),
    };
}
/** What the options that every node has come to. Throws kind `invalid-option` for a wrong flag. */
export function nodeFlags(options, inherited) {
    const { policy } = inherited;
    const readOnly = flag('read-only', options['read-only'], inherited.readOnly);
    const forceShare = flag('force-share', options['force-share'], policy.forceShare === true);
    const unmap = options['discard'] === undefined ? inherited.unmap : options['discard'] === 'unmap';
    const detect = options['detect-zeroes'];
    const detectZeroes = detect === 'on' || detect === 'unmap' ? detect : 'off';
    return {
        forceShare,
        autoReadOnly: flag('auto-read-only', options['auto-read-only'], inherited.autoReadOnly),
        cache: cacheOptions(options, policy),
        policy: { readOnly, writeThrough: inherited.writeThrough, unmap, detectZeroes },
    };
}
/** Unmapping zeroes needs discards. Throws kind `invalid-option`. */
export function requireUnmap({ policy }) {
    if (policy.detectZeroes !== 'unmap' || policy.unmap)
        return;
    throw new BlockError('invalid-option', 'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
}
export function makeNode(graph, request) {
    const { driver, options, inherited } = request;
    const flags = nodeFlags(options, inherited);
    const { forceShare, cache, policy } = flags;
    if (forceShare && !policy.readOnly) {
        throw new BlockError('invalid-option', 'force-share=on can only be used with read-only images');
    }
    requireUnmap(flags);
    const name = graph.names.claim(options['node-name']);
    return new BlockNode({
        name,
        driver,
        options: {
            ...options,
            'node-name': name,
            'force-share': forceShare,
            'auto-read-only': flags.autoReadOnly,
            cache,
        },
        given: options,
        policy,
        inspectOnly: inherited.policy.inspectOnly === true,
        repairs: inherited.policy.repair === true,
        forceShare,
    });
}
/** What a child that is not a backing file gets from its parent. */
export function inheritedByChild(flags, inherited) {
    return {
        ...inherited,
        policy: {
            ...inherited.policy,
            direct: flags.cache.direct,
            noFlush: flags.cache['no-flush'],
            forceShare: flags.forceShare,
        },
        readOnly: flags.policy.readOnly,
        autoReadOnly: flags.autoReadOnly,
        unmap: true,
        writeThrough: false,
        guessedBacking: false,
    };
}
function flag(name, value, otherwise) {
    return value === undefined ? otherwise : looseFlag(name, value);
}
/** Cache members as given for this node, else as the command line says. */
function cacheOptions(options, policy) {
    const own = options['cache'] ?? {};
    if (typeof own !== 'object' || Array.isArray(own)) {
        const text = "Invalid parameter type for 'cache', expected: object";
        throw new BlockError('invalid-option', text);
    }
    const { direct, 'no-flush': noFlush, ...others } = own;
    const [other] = Object.keys(others);
    if (other !== undefined) {
        throw new BlockError('invalid-option', `Parameter 'cache.${other}' is unexpected`);
    }
    return {
        direct: flag('cache.direct', direct, policy.direct === true),
        'no-flush': flag('cache.no-flush', noFlush, policy.noFlush === true),
    };
}
/** The same error with words in front; a loop is one line, however deep it was found. */
export function withPrefix(prefix, thrown) {
    const error = toBlockError(thrown);
    if (error.context.operation === 'backing-loop')
        return error;
    return new BlockError(error.kind, prefix + error.message, {
        ...error.context,
        cause: error,
    });
}
/** What a backing file gets from its overlay. */
export function inheritedByOverlay(flags, inherited) {
    const below = inheritedByChild(flags, inherited);
    return { ...below, readOnly: true, autoReadOnly: false };
}
export function flagsOf(node) {
    return {
        forceShare: node.forceShare,
        autoReadOnly: node.options['auto-read-only'] === true,
        cache: node.options['cache'],
        policy: { ...node.pipeline.policy, readOnly: node.readOnly },
    };
}
