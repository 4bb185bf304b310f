// SPDX-License-Identifier: Apache-2.0
// A past state of a node that can be read while the node itself changes.
//
// Offered by a driver that keeps one (copy-before-write), used by snapshot-access. All throw kind
// `access-denied` for what the snapshot does not have, or has no longer.
export {};
