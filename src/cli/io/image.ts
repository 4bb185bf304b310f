// SPDX-License-Identifier: Apache-2.0
// Commands about the whole file: its length, facts and allocated areas, and changes of it that
// carry no bytes (`discard`, `truncate`, `flush`).

import { errnoText, MAX_OFFSET, Permission, toBlockError } from '../../base/index.js';
import { infoBelow, vmStateOf } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import { CliError } from '../program.js';
import { treeLines } from '../img/info/text.js';
import { CommandFailure } from './command.js';
import type { Command } from './command.js';
import { amountText, lengthOf, SECTOR, sizeOf } from './numbers.js';
import { COUNTS, perform, QUIET, requireInside } from './requests.js';
import type { Shell } from './shell.js';

const STORING_NOTHING = new Set(['null-co', 'null-aio']);

/** Those with a name of their own before a colon, which is told as well. */
const PROTOCOLS = new Set(['file', 'host_device', 'null-co', 'null-aio', 'blkdebug', 'blkverify']);

export const length: Command = {
  name: 'length',
  alias: 'l',
  usage: '',
  about: 'gets the length of the current file',
  words: [0, 0],
  run(shell) {
    shell.program.out(`${amountText(shell.file.node.length)}\n`);
  },
};

export const info: Command = {
  name: 'info',
  alias: 'i',
  usage: '',
  about: 'prints information about the current file',
  words: [0, 0],
  run(shell) {
    const node = storing(shell.file.node);
    const out = (line: string): void => shell.program.out(`${line}\n`);
    out(`format name: ${node.driver.name}`);
    if (PROTOCOLS.has(node.driver.name)) out(`format name: ${node.driver.name}`);
    // Such a node has no clusters to be told of, which ends the command.
    if (STORING_NOTHING.has(node.driver.name)) throw new CommandFailure('');
    const { specific } = node.info;
    const { clusterSize = 0 } = infoBelow(node);
    out(`cluster size: ${amountText(clusterSize)}`);
    out(`vm state offset: ${amountText(vmStateOf(node)?.offset ?? 0)}`);
    if (specific !== undefined && Object.keys(specific.data).length > 0) {
      out('Format specific information:');
      for (const line of treeLines(specific.data, 1)) out(line);
    }
  },
};

/** The node that says what is where: no filter of the command line. */
function storing(node: Node): Node {
  return node.driver.name === 'copy-on-read' && node.filtered !== null ? node.filtered : node;
}

export const flush: Command = {
  name: 'flush',
  alias: 'f',
  usage: '',
  about: 'flushes everything written so far to stable storage',
  words: [0, 0],
  async run(shell) {
    try {
      await shell.wait(shell.file.backend.flush());
    } catch (error) {
      toBlockError(error);
      throw new CommandFailure('');
    }
  },
};

export const discard: Command = {
  name: 'discard',
  alias: 'd',
  usage: '[-Cq] off len',
  about: 'discards a number of bytes at a specified offset',
  words: [2, null],
  permissions: Permission.write,
  flags: [COUNTS, QUIET],
  manual: ['What is discarded may be given back to the host, or stay as it is (see -d).'],
  async run(shell, given) {
    given.read([2, 2]);
    const offset = sizeOf(given.operand(0));
    const bytes = lengthOf(given.operand(1));
    await perform(shell, given, {
      verb: 'discard',
      name: 'discard',
      offset,
      length: bytes,
      begin() {
        requireInside(shell, offset, bytes);
        return shell.file.backend.discard(offset, bytes);
      },
    });
  },
};

const PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;

export const truncate: Command = {
  name: 'truncate',
  alias: 't',
  usage: '[-m prealloc_mode] off',
  about: 'truncates the current file at the given offset',
  words: [1, 3],
  permissions: Permission.write | Permission.resize,
  flags: [
    { letter: 'm', value: 'prealloc_mode', about: `one of ${PREALLOCATIONS.join(', ')}` },
  ],
  async run(shell, given) {
    let mode: (typeof PREALLOCATIONS)[number] = 'off';
    given.read([1, null], (_letter, value) => {
      const found = PREALLOCATIONS.find((name) => name === value);
      if (found === undefined) throw new CliError(`Invalid preallocation mode '${value}'`);
      mode = found;
    });
    const size = sizeOf(given.operand(0));
    const { backend } = shell.file;
    // Beyond what any node can have, the same is said of it.
    if (size > MAX_OFFSET) {
      const isImage = storing(backend.node).driver.name === 'qcow2';
      const what = isImage ? 'Failed to grow the L1 table' : 'Could not resize file';
      throw new CliError(`${what}: ${errnoText('EFBIG')}`);
    }
    const leave = await shell.wait(backend.enter());
    try {
      await shell.wait(backend.node.truncate(size, { exact: false, preallocation: mode }));
    } finally {
      leave();
    }
  },
};

interface Area {
  readonly allocated: boolean;
  readonly length: number;
}

/** How this layer holds what is at the offset, joined with what follows, up to `end`. */
async function areaAt(shell: Shell, offset: number, end: number): Promise<Area> {
  let node = shell.file.node;
  while (node.filtered !== null) node = node.filtered;
  let allocated: boolean | null = null;
  let at = offset;
  while (at < end) {
    const found = node.blockStatus(at, end - at, false);
    const status = found instanceof Promise ? await shell.wait(found) : found;
    const isHeld = status.allocated && (status.zero || !STORING_NOTHING.has(node.driver.name));
    if (allocated !== null && isHeld !== allocated) break;
    allocated = isHeld;
    at += status.length;
  }
  return { allocated: allocated ?? false, length: at - offset };
}

export const alloc: Command = {
  name: 'alloc',
  alias: 'a',
  usage: 'offset [count]',
  about: 'checks if offset is allocated in the file',
  words: [1, 2],
  async run(shell, given) {
    const [first = '', second] = given.words;
    const offset = sizeOf(first);
    const asked = second === undefined ? SECTOR : sizeOf(second);
    const total = Math.max(0, Math.min(asked, shell.file.node.length - offset));
    const end = offset + total;
    let sum = 0;
    try {
      for (let at = offset; at < end; ) {
        const area = await areaAt(shell, at, end);
        if (area.allocated) sum += area.length;
        at += area.length;
      }
    } catch (error) {
      const text = errnoText(toBlockError(error).errno);
      throw new CommandFailure(`is_allocated failed: ${text}`);
    }
    const where = `allocated at offset ${amountText(offset)}`;
    shell.program.out(`${sum}/${total} bytes ${where}\n`);
  },
};

export const map: Command = {
  name: 'map',
  usage: '',
  about: 'prints the allocated areas of a file',
  words: [0, 0],
  async run(shell) {
    const end = shell.file.node.length;
    if (end === 0) return;
    try {
      for (let at = 0; at < end; ) {
        const area = await areaAt(shell, at, end);
        shell.program.out(areaLine(at, area));
        at += area.length;
      }
    } catch (error) {
      const text = errnoText(toBlockError(error).errno);
      throw new CliError(`Failed to get allocation status: ${text}`);
    }
  },
};

function areaLine(offset: number, area: Area): string {
  const state = area.allocated ? '    allocated' : 'not allocated';
  return (
    `${amountText(area.length)} (0x${area.length.toString(16)}) bytes ${state} ` +
    `at offset ${amountText(offset)} (0x${offset.toString(16)})\n`
  );
}
