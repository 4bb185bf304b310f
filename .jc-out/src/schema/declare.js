// SPDX-License-Identifier: Apache-2.0
// Declarations of commands and events: pure data that servers, clients and documents share.
import { struct } from './types.js';
export function command(options) {
    return {
        declares: 'command',
        name: options.name,
        since: options.since,
        doc: options.doc,
        args: argumentType(options.name, options.args),
        returns: (options.returns ?? null),
        features: options.features ?? [],
        allowOob: options.allowOob ?? false,
    };
}
function argumentType(name, args) {
    if (args === undefined)
        return struct(`${name}-arg`, {});
    if (isWhole(args))
        return args;
    return struct(`${name}-arg`, args);
}
function isWhole(args) {
    return typeof args['kind'] === 'string';
}
export function event(options) {
    return {
        declares: 'event',
        name: options.name,
        since: options.since ?? '',
        doc: options.doc ?? '',
        data: struct(`${options.name}-arg`, options.data),
    };
}
