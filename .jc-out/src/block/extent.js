// SPDX-License-Identifier: Apache-2.0
// Planned extents: what a lane may read or fill directly on a host file, without the graph.
export {};
