// SPDX-License-Identifier: Apache-2.0
// How a measurement is made: the contestants alternate within one run, each round begins with the
// same sources in the page cache, no target and nothing left to write back; the median counts.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface BenchContext {
  /** Scratch folder, removed afterwards. */
  readonly folder: string;
  /** Virtual size of the disks, in bytes. */
  readonly size: number;
  readonly rounds: number;
  /** Command line that runs Blockwright. */
  readonly ours: readonly string[];
  /** Path of a real tool, or null: then only ours is measured. */
  peer(name: string): string | null;
  log(line: string): void;
}

/** A figure of every round of each. */
export interface Paired {
  readonly ours: readonly number[];
  readonly peer: readonly number[] | null;
}

export interface Result extends Paired {
  readonly question: string;
  /** Bytes of the virtual disk that a run moves. */
  readonly bytes: number;
  /** Wall seconds of every round, in order. */
  readonly ours: readonly number[];
  readonly peer: readonly number[] | null;
  /** Seconds of start-up that are part of each figure of ours and the peer's. */
  readonly startUpIncluded: { readonly ours: number; readonly peer: number | null };
  /** Both results were compared byte by byte; null when there was nothing to compare with. */
  readonly verified: boolean | null;
  /** Seconds of processor time of the command or the daemon. */
  readonly cpu?: Paired;
  /** As startUpIncluded, of processor time. */
  readonly startUpCpu?: { readonly ours: number; readonly peer: number | null };
  /** Seconds that a flush of the target took afterwards: 0 when all of it was on disk. */
  readonly flush?: Paired;
}

/** One question: a file of this folder exports it as `bench`. */
export interface Bench {
  readonly name: string;
  readonly question: string;
  run(context: BenchContext): Promise<readonly Result[]>;
}

export interface Contestants {
  /** Puts everything back to the state before a run. */
  reset(who: 'ours' | 'peer'): void | Promise<void>;
  /** One timed run; gives its seconds. */
  readonly ours: () => Promise<number>;
  readonly peer: (() => Promise<number>) | null;
}

/** One untimed run of each, then `rounds` timed ones, changing who goes first. */
export async function alternate(
  context: BenchContext,
  contestants: Contestants,
): Promise<{ ours: number[]; peer: number[] | null }> {
  const ours: number[] = [];
  const peer: number[] = [];
  const runPeer = contestants.peer;
  const one = async (who: 'ours' | 'peer', into: number[] | null): Promise<void> => {
    const run = who === 'ours' ? contestants.ours : runPeer;
    if (run === null) return;
    await contestants.reset(who);
    execFileSync('sync');
    const seconds = await run();
    into?.push(seconds);
  };
  await one('ours', null);
  await one('peer', null);
  for (let round = 0; round < context.rounds; round += 1) {
    const order = round % 2 === 0 ? (['ours', 'peer'] as const) : (['peer', 'ours'] as const);
    for (const who of order) await one(who, who === 'ours' ? ours : peer);
  }
  return { ours, peer: runPeer === null ? null : peer };
}

const run = promisify(execFile);

/** Wall seconds of a command from spawn to exit; throws with its error output when it fails. */
export async function timeCommand(command: readonly string[]): Promise<number> {
  const [program = '', ...args] = command;
  const begin = performance.now();
  await run(program, args);
  return (performance.now() - begin) / 1000;
}

/** The same, with its output in a file: it may be long. */
export async function timeOutput(command: readonly string[], path: string): Promise<number> {
  const [program = '', ...args] = command;
  const file = openSync(path, 'w');
  try {
    const begin = performance.now();
    const child = spawn(program, args, { stdio: ['ignore', file, 'inherit'] });
    const status = await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const seconds = (performance.now() - begin) / 1000;
    if (status !== 0) throw new Error(`${command.join(' ')} ended with status ${String(status)}`);
    return seconds;
  } finally {
    closeSync(file);
  }
}

/** Median start-up: the shortest command line of each, several times. */
export async function startUp(command: readonly string[]): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < 5; round += 1) times.push(await timeCommand(command));
  return median(times);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? NaN) + high) / 2;
}

/** From dist/bench. */
const MAIN = '../cli/blockwright.js';

/** The command line of this very build. */
export function ourCommand(): readonly string[] {
  const main = fileURLToPath(new URL(MAIN, import.meta.url));
  return [process.execPath, main];
}

export function findProgram(name: string): string | null {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  return null;
}

/** True when two images hold the same bytes, by the real tool when it is there. */
export async function sameContent(
  context: BenchContext,
  left: { path: string; format: string },
  right: { path: string; format: string },
): Promise<boolean> {
  const real = context.peer('qemu-img');
  const compare = real === null ? [...context.ours, 'img', 'compare'] : [real, 'compare'];
  const files = ['-f', left.format, '-F', right.format, left.path, right.path];
  try {
    await timeCommand([...compare, ...files]);
    return true;
  } catch {
    return false;
  }
}
