// SPDX-License-Identifier: Apache-2.0
// Random conversations about encrypted images: secrets come and go, nodes are opened, reopened,
// amended, resized, snapshotted and copied with options right and wrong. Drawn from a seed.

import { SeededRandom } from '../../src/base/index.js';
import { command, untilEvent } from './transcript.js';
import type { Line, Step } from './transcript.js';

/** Images that the conversation is about, by the names of their file nodes. */
export const ENCRYPTED_FILES = ['luks', 'copy', 'inside', 'other', 'aes', 'plain'] as const;
const SECRETS = { s0: 'first', s1: 'second', s2: 'nobody' } as const;
const IDS = ['s0', 's0', 's0', 's1', 's1', 's2', 'gone'] as const;
/**
 * The file of each node stays: a reopen on another image reads that one's header here, and goes on
 * with that of the old one in the reference.
 */
const FILES = {
  l0: 'luks', l1: 'luks', l2: 'copy',
  q0: 'inside', q1: 'other',
  r0: 'aes', r1: 'inside', p0: 'plain',
} as const;
const NODES = Object.keys(FILES) as readonly (keyof typeof FILES)[];
type Name = (typeof NODES)[number];
const LUKS: readonly Name[] = ['l0', 'l1', 'l2'];
/** Never read-only: the reference ends by an assertion when such an image is amended. */
const WRITABLE: readonly Name[] = ['q0', 'q1'];
const MIB = 2 ** 20;

class Draw {
  readonly #random: SeededRandom;

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
  }

  below(count: number): number {
    const bytes = new Uint8Array(2);
    this.#random.fill(bytes);
    return (((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)) % count;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  oneIn(count: number): boolean {
    return this.below(count) === 0;
  }
}

export function encryptionSteps(seed: number, count: number, directory: string): Step[] {
  const draw = new Draw(seed);
  const secret = (id: string, data: string): string =>
    command('object-add', { 'qom-type': 'secret', id, data });
  const steps: Step[] = [
    ...Object.entries(SECRETS).map(([id, data]) => secret(id, data)),
    ...ENCRYPTED_FILES.map((name) =>
      command('blockdev-add', {
        driver: 'file', 'node-name': name, filename: `${directory}/${name}`,
      }),
    ),
  ];
  for (let step = 0; step < count; step += 1) steps.push(...oneOf(draw));
  return steps;
}

function oneOf(draw: Draw): Step[] {
  const kind = draw.below(20);
  if (kind < 6) return [command('blockdev-add', node(draw, draw.of(NODES)))];
  if (kind < 9) return [command('blockdev-reopen', { options: [node(draw, draw.of(NODES))] })];
  if (kind < 11) return [command('blockdev-del', { 'node-name': draw.of(NODES) })];
  if (kind < 15) return amend(draw);
  if (kind < 16) return [secretStep(draw)];
  if (kind < 17) return [resize(draw)];
  if (kind < 18) return [copy(draw)];
  if (kind < 19) {
    // What is below is read-only then.
    const below = draw.of(NODES.filter((name) => !WRITABLE.includes(name)));
    return [command('blockdev-snapshot', { node: below, overlay: draw.of(NODES) })];
  }
  return [
    command('query-named-block-nodes', { flat: true }),
    command('x-debug-query-block-graph'),
  ];
}

function encrypt(draw: Draw, format: string): Line | undefined {
  if (draw.oneIn(12)) return undefined;
  const said = draw.oneIn(12) ? draw.of(['luks', 'aes', 'qcow']) : format;
  return draw.oneIn(15) ? { format: said } : { format: said, 'key-secret': draw.of(IDS) };
}

function node(draw: Draw, name: Name): Line {
  const readOnly = !WRITABLE.includes(name) && draw.oneIn(3) ? { 'read-only': true } : {};
  const file = FILES[name];
  const more = { 'node-name': name, file, ...readOnly };
  if (LUKS.includes(name)) {
    const key = draw.oneIn(15) ? {} : { 'key-secret': draw.of(IDS) };
    return { driver: 'luks', ...more, ...key };
  }
  const format = file === 'aes' ? 'aes' : 'luks';
  const wanted = file === 'plain' && !draw.oneIn(6) ? undefined : encrypt(draw, format);
  const options = { driver: 'qcow2', ...more, ...(wanted && { encrypt: wanted }) };
  // Of two mistakes the one of the image is told first there, when a node is reopened.
  const isRight = wanted === undefined ? file === 'plain' : wanted['format'] === format;
  if (!isRight || (file === 'plain' && wanted !== undefined) || !draw.oneIn(3)) return options;
  const others = NODES.filter((each) => each !== name);
  return { ...options, backing: draw.oneIn(2) ? null : draw.of(others) };
}

/** What takes no new password, which the reference would measure its speed for. */
function amend(draw: Draw): Step[] {
  const isLuks = draw.oneIn(2);
  const members: Record<string, unknown> = draw.oneIn(4)
    ? { state: 'active', 'new-secret': 'gone', ...(draw.oneIn(2) && { keyslot: draw.below(9) }) }
    : { state: 'inactive', ...(draw.oneIn(2) && { keyslot: draw.below(9) }) };
  if (draw.oneIn(2)) members['old-secret'] = draw.of(IDS);
  const options = isLuks
    ? { driver: 'luks', ...members }
    : { driver: 'qcow2', encrypt: { format: 'luks', ...members } };
  const args = {
    'job-id': 'j', 'node-name': draw.of(isLuks ? LUKS : WRITABLE), options,
    ...(draw.oneIn(4) && { force: true }),
  };
  return [
    untilEvent('concluded j or null j', 'x-blockdev-amend', args),
    command('query-jobs'),
    command('job-dismiss', { id: 'j' }),
  ];
}

function secretStep(draw: Draw): string {
  const id = draw.of(['s0', 's1', 's2'] as const);
  if (draw.oneIn(2)) return command('object-del', { id });
  return command('object-add', { 'qom-type': 'secret', id, data: SECRETS[id] });
}

/** What shares its file keeps the size there that it once had. */
const RESIZED = NODES.filter((name) => FILES[name] !== 'luks');

function resize(draw: Draw): string {
  const size = draw.of([0, 512, 1000, 65_536, MIB, 2 * MIB]);
  return command('block_resize', { 'node-name': draw.of(RESIZED), size });
}

function copy(draw: Draw): Step {
  const [device, target] = [draw.of(NODES), draw.of(NODES)];
  return untilEvent('null b', 'blockdev-backup', {
    'job-id': 'b', device, target, sync: draw.of(['full', 'top']),
  });
}
