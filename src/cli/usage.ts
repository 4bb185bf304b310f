// SPDX-License-Identifier: Apache-2.0
// Help of the program itself. It stands alone, so that the reference pages can have it without
// running the program; a test compares it with the verbs that there are.

export const USAGE = `usage: blockwright COMMAND [OPTIONS]

  img             disk images: create, info, check, map, compare, convert, measure, resize,
                  rebase, commit, dd, bench, snapshot, bitmap, amend, luks
  io              commands on one image: read, write, map, breakpoints
  storage-daemon  block nodes, jobs and QMP in one process
  shim DIR        write qemu-img, qemu-io and qemu-storage-daemon into DIR that run Blockwright
  docs DIR        write the reference of this version into DIR
  tour            the main job from end to end, on temporary images
  bench           measure against the real tools (in a source checkout)

  -h, --help      this help; also after a command
  -V, --version   the version
`;
