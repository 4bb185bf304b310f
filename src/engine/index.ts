// SPDX-License-Identifier: Apache-2.0
export { Engine } from './engine.js';
export type { EngineParts } from './engine.js';
export { EventBus } from './events.js';
export type { EngineEvent, EventListener } from './events.js';
