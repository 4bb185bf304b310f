// SPDX-License-Identifier: Apache-2.0
// Objects by id, and their properties by path.
import { listObjectTypes, listTypeProperties } from '../../engine/index.js';
export const objectCommands = {
    'object-add': (engine, options) => engine.objects.add(options),
    'object-del': (engine, { id }) => engine.objects.remove(id),
    'qom-list': (engine, { path }) => engine.objects.list(path),
    'qom-get': (engine, { path, property }) => engine.objects.get(path, property),
    'qom-set': (engine, { path, property, value }) => engine.objects.set(path, property, value),
    'qom-list-types': (_engine, { implements: ancestor, abstract = false }) => listObjectTypes(ancestor, abstract),
    'qom-list-properties': (_engine, { typename }) => listTypeProperties(typename),
};
