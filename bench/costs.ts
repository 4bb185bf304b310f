// SPDX-License-Identifier: Apache-2.0
// What a command costs beside time: seconds of processors, its own and those of what it starts.
// bash reads that from the system when the command has ended; without bash there is wall time only.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Paired } from './harness.js';
import { findProgram, median, timeCommand } from './harness.js';

export type Who = 'ours' | 'peer';

export interface Cost {
  readonly wall: number;
  /** NaN where nobody tells. */
  readonly cpu: number;
}

const run = promisify(execFile);
const TIMED = 'TIMEFORMAT="%3R %3U %3S"; time "$@" > /dev/null';
const bash = findProgram('bash');

/** Throws with its error output when it fails. */
export async function measureCommand(command: readonly string[]): Promise<Cost> {
  if (bash === null) return { wall: await timeCommand(command), cpu: Number.NaN };
  const env = { ...process.env, LC_ALL: 'C' };
  const { stderr } = await run(bash, ['-c', TIMED, 'bash', ...command], { env });
  const [wall = Number.NaN, user = Number.NaN, system = Number.NaN] =
    stderr.trim().split('\n').at(-1)?.split(' ').map(Number) ?? [];
  return { wall, cpu: user + system };
}

/** Collects what the runs of both contestants cost. */
export class Meter {
  readonly #cpu: Record<Who, number[]> = { ours: [], peer: [] };

  /** Notes the cost and gives wall seconds. */
  note(who: Who, { wall, cpu }: Cost): number {
    this.#cpu[who].push(cpu);
    return wall;
  }

  async command(who: Who, command: readonly string[]): Promise<number> {
    return this.note(who, await measureCommand(command));
  }

  /** Of the timed runs: each had one before that was not. */
  cpu(withPeer: boolean): Paired {
    const { ours, peer } = this.#cpu;
    return { ours: ours.slice(1), peer: withPeer ? peer.slice(1) : null };
  }
}

/** Medians of several runs of the shortest command line. */
export async function startCost(command: readonly string[]): Promise<Cost> {
  const costs: Cost[] = [];
  for (let round = 0; round < 5; round += 1) costs.push(await measureCommand(command));
  return { wall: median(costs.map(({ wall }) => wall)), cpu: median(costs.map(({ cpu }) => cpu)) };
}
