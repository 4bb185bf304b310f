// SPDX-License-Identifier: Apache-2.0
// Arguments of `blockdev-create` as the job sees them. The union of the drivers' create options is
// put together from the drivers' own declarations, above this floor.
export {};
