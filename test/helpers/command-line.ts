// SPDX-License-Identifier: Apache-2.0
// What a command line printed, judged the same with and without the native addon.

/** Without the addon one line warns that images are not locked; it is no complaint. */
const NOT_LOCKED = /^.*images are not locked against other programs.*\r?\n/gm;

export function complaintsOf(errorOutput: string): string {
  return errorOutput.replace(NOT_LOCKED, '');
}
