// SPDX-License-Identifier: Apache-2.0
// One action of a transaction: prepared in order, then committed in order or undone in reverse.
export {};
