// SPDX-License-Identifier: Apache-2.0
// The four permissions of a graph edge, as bits of a mask; the same bit numbers are used for the
// byte locks on host files.
export const Permission = {
    none: 0,
    consistentRead: 1,
    write: 2,
    writeUnchanged: 4,
    resize: 8,
    all: 15,
};
/** Indexed by bit number; the spelling of QMP and of messages. */
export const PERMISSION_NAMES = ['consistent read', 'write', 'write unchanged', 'resize'];
