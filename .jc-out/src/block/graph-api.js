// SPDX-License-Identifier: Apache-2.0
// The graph as its users (jobs, commands, command lines) see it.
export {};
