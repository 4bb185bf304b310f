// SPDX-License-Identifier: Apache-2.0
// What a command handler is: bound to a declaration by name, given checked arguments.
export {};
