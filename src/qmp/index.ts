// SPDX-License-Identifier: Apache-2.0
export { QmpServer } from './server.js';
export { duplexStreams, QmpSession } from './session.js';
export type { SessionOptions, SessionStreams } from './session.js';
