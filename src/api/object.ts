// SPDX-License-Identifier: Apache-2.0
// Commands for objects beside the graph, and for looking at and changing their properties.
//
// Types that are not here (`tls-creds-x509`, …) are refused by their name.

import { throttleGroupProperties } from '../block/throttle/options.js';
import {
  any,
  bool,
  command,
  enumeration,
  int,
  list,
  optional,
  str,
  struct,
  union,
} from '../schema/index.js';

const eventLoop = {
  'aio-max-batch': optional(int),
  'thread-pool-min': optional(int),
  'thread-pool-max': optional(int),
} as const;

export const objectOptions = union('ObjectOptions', {
  base: { id: str },
  discriminator: 'qom-type',
  tagName: 'ObjectType',
  branches: {
    'throttle-group': throttleGroupProperties,
    iothread: struct('IothreadProperties', {
      ...eventLoop,
      'poll-max-ns': optional(int),
      'poll-grow': optional(int),
      'poll-shrink': optional(int),
    }),
    secret: struct('SecretProperties', {
      data: optional(str),
      file: optional(str),
      format: optional(enumeration('QCryptoSecretFormat', ['raw', 'base64'])),
      keyid: optional(str),
      iv: optional(str),
      loaded: optional(bool, { features: ['deprecated'] }),
    }),
    'main-loop': struct('MainLoopProperties', eventLoop),
  },
});

export const objectAdd = command({
  name: 'object-add',
  since: '2.0',
  doc: 'Makes an object, which other things then refer to by its id.',
  args: objectOptions,
});
export const objectDel = command({
  name: 'object-del',
  since: '2.0',
  doc: 'Removes an object that nothing uses.',
  args: { id: str },
});

export const objectPropertyInfo = struct('ObjectPropertyInfo', {
  name: str,
  type: str,
  description: optional(str),
  'default-value': optional(any),
});

export const qomList = command({
  name: 'qom-list',
  since: '1.2',
  doc: 'Lists the properties of the object at a path, its children among them.',
  args: { path: str },
  returns: list(objectPropertyInfo),
});
export const qomGet = command({
  name: 'qom-get',
  since: '1.2',
  doc: 'Value of a property; a child is given as its path.',
  args: { path: str, property: str },
  returns: any,
});
export const qomSet = command({
  name: 'qom-set',
  since: '1.2',
  doc: 'Changes a property, such as the limits of a throttle group in use.',
  args: { path: str, property: str, value: any },
});
export const qomListTypes = command({
  name: 'qom-list-types',
  since: '1.2',
  doc: 'Types of objects, all or those that derive from one.',
  args: { implements: optional(str), abstract: optional(bool) },
  returns: list(
    struct('ObjectTypeInfo', { name: str, abstract: optional(bool), parent: optional(str) }),
  ),
});
export const qomListProperties = command({
  name: 'qom-list-properties',
  since: '2.12',
  doc: 'Properties that every object of a type has.',
  args: { typename: str },
  returns: list(objectPropertyInfo),
});
