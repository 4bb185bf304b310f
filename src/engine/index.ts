// SPDX-License-Identifier: Apache-2.0
export { DRIVER_LOADERS } from './catalog.js';
export { checkedDrivers } from './checked-drivers.js';
export type { DriverName } from './catalog.js';
export { createEngine } from './create.js';
export type { EngineOptions } from './create.js';
export { Engine } from './engine.js';
export type { EngineParts, ReferenceHabits } from './engine.js';
export {
  changeBackingFile,
  prepareSnapshotInto,
  prepareSnapshotOnto,
} from './snapshot.js';
export { deleteInternalSnapshot, prepareInternalSnapshot } from './internal-snapshot.js';
export type { PreparedSnapshot } from './snapshot.js';
export { EventBus } from './events.js';
export { storedBytes } from './stored-bytes.js';
export { listObjectTypes, listTypeProperties } from './object-types.js';
export { ObjectRegistry } from './objects.js';
export type { ObjectOptions } from './objects.js';
export type { EngineEvent, EventListener } from './events.js';
export * from './bitmaps.js';
