// SPDX-License-Identifier: Apache-2.0
// The published kit for tests of image tooling: a simulated host whose power can be cut, seeded
// randomness, a clock that stands still, and a model of a disk to hold results against.
export { type Clock, ManualClock, type Random, SeededRandom } from '../base/index.js';
export {
  CrashDisk,
  type HostFault,
  type HostOperation,
  MemoryHost,
  type MemoryHostOptions,
  type PowerLossChoice,
  type UnsyncedChange,
} from '../host/index.js';
export { DiskModel } from './disk-model.js';
export { GuestWriter, type GuestDisk, type GuestWriterOptions } from './guest-writer.js';
