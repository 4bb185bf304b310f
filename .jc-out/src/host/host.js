// SPDX-License-Identifier: Apache-2.0
// What the block layer needs of the world: files, locks, time and randomness.
//
// Three implementations: native/ (the addon), node/ (Node's own calls only), simulated/ (memory,
// with a crash disk). Data calls are synchronous first: they return the plain value when they
// finished inline and a promise only when they must wait; the simulated host does either, by seed.
export {};
