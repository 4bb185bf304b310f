// SPDX-License-Identifier: Apache-2.0
// Commands of the monitor itself.
import { any, bool, command, enumeration, int32, list, optional, required, str, struct, union, } from '../schema/index.js';
export const qmpCapability = enumeration('QMPCapability', ['oob']);
export const qmpCapabilities = command({
    name: 'qmp_capabilities',
    since: '0.13',
    doc: 'Ends capability negotiation; until then every other command is refused.',
    args: { enable: optional(list(qmpCapability)) },
});
export const versionTriple = struct('VersionTriple', { major: int32, minor: int32, micro: int32 });
export const versionInfo = struct('VersionInfo', { qemu: versionTriple, package: str });
export const queryVersion = command({
    name: 'query-version',
    since: '0.14',
    doc: 'Version of the protocol that is spoken, and the package that speaks it.',
    returns: versionInfo,
});
export const queryCommands = command({
    name: 'query-commands',
    since: '0.14',
    doc: 'Names of all commands.',
    returns: list(struct('CommandInfo', { name: str })),
});
const featureList = optional(list(str));
const namedType = struct('SchemaInfoAlternateMember', { type: str });
/** One entry of query-qmp-schema. */
export const schemaInfo = union('SchemaInfo', {
    base: { name: str, features: featureList },
    discriminator: 'meta-type',
    tagName: 'SchemaMetaType',
    branches: {
        builtin: struct('SchemaInfoBuiltin', {
            'json-type': enumeration('JSONType', [
                'string',
                'number',
                'int',
                'boolean',
                'null',
                'object',
                'array',
                'value',
            ]),
        }),
        enum: struct('SchemaInfoEnum', {
            members: list(struct('SchemaInfoEnumMember', { name: str, features: featureList })),
            values: required(list(str), { features: ['deprecated'] }),
        }),
        array: struct('SchemaInfoArray', { 'element-type': str }),
        object: struct('SchemaInfoObject', {
            members: list(struct('SchemaInfoObjectMember', {
                name: str,
                type: str,
                default: optional(any),
                features: featureList,
            })),
            tag: optional(str),
            variants: optional(list(struct('SchemaInfoObjectVariant', { case: str, type: str }))),
        }),
        alternate: struct('SchemaInfoAlternate', { members: list(namedType) }),
        command: struct('SchemaInfoCommand', {
            'arg-type': str,
            'ret-type': str,
            'allow-oob': optional(bool),
        }),
        event: struct('SchemaInfoEvent', { 'arg-type': str }),
    },
});
export const queryQmpSchema = command({
    name: 'query-qmp-schema',
    since: '2.5',
    doc: 'Commands, events and their types, for clients that probe; names of types are masked.',
    returns: list(schemaInfo),
});
export const quit = command({
    name: 'quit',
    since: '0.14',
    doc: 'Ends the program: jobs are cancelled, images closed cleanly.',
});
/** What query-version and the greeting say: the protocol spoken, and who speaks it. */
export const VERSION = {
    qemu: { micro: 0, minor: 2, major: 7 },
    package: 'Blockwright 0.1.0',
};
