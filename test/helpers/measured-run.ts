// SPDX-License-Identifier: Apache-2.0
// The program as a real process, measured: how it ended, what it said, how much memory it took.
//
// A run that does not end by itself is killed and has the status null: by the kernel after ten
// seconds of processor time, however busy the machine is, or when it hangs. Memory is the process's
// own highest resident size, which it writes to descriptor 3 when it exits: VmHWM, for maxRSS has
// what the process that started it had in memory.
import { spawn } from 'node:child_process';

import { complaintsOf } from './command-line.js';
import type { CommandServer } from './command-server.js';

const MAIN = new URL('../../dist/cli/blockwright.js', import.meta.url).pathname;
const REPORT_MEMORY =
  'data:text/javascript,import{readFileSync,writeSync}from"node:fs";process.on("exit",()=>' +
  'writeSync(3,/VmHWM:\\s*(\\d+)/.exec(readFileSync("/proc/self/status","utf8"))[1]))';

/** What bad input may cost at most. */
export const BAD_INPUT_LIMITS = { processorSeconds: 10, hangMs: 50_000, residentMiB: 300 } as const;

export interface MeasuredRun {
  readonly status: number | null;
  readonly output: string;
  readonly complaint: string;
  readonly residentMiB: number;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

const LIMITED = `ulimit -t ${BAD_INPUT_LIMITS.processorSeconds}; exec "$0" "$@"`;

/** `node dist/cli/blockwright.js ARGS`, killed after ten seconds of work. */
export function runMeasured(
  args: readonly string[],
  options: RunOptions = {},
): Promise<MeasuredRun> {
  const program = [process.execPath, '--import', REPORT_MEMORY, MAIN];
  const child = spawn('/bin/sh', ['-c', LIMITED, ...program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    timeout: BAD_INPUT_LIMITS.hangMs,
    killSignal: 'SIGKILL',
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
  });
  const texts = ['', '', '', ''];
  child.stdio.forEach((stream, index) => {
    if (index === 0 || stream === null || stream === undefined) return;
    stream.on('data', (chunk: Buffer) => {
      texts[index] += chunk.toString('utf8');
    });
  });
  return new Promise((resolve) => {
    child.once('close', (status) => {
      const [, output = '', complaint = '', memory = ''] = texts;
      const residentMiB = Number(memory) / 1024;
      resolve({ status, output, complaint: complaintsOf(complaint), residentMiB });
    });
  });
}

/**
 * The same for one of many command lines that share a process: the memory is the highest of all so
 * far, and work without end ends the server, which throws.
 */
export function measureLine(
  server: CommandServer,
  args: readonly string[],
  cwd: string,
): MeasuredRun {
  const { out, err, status, cpuSeconds, residentMiB } = server.run(cwd, args);
  const isLate = cpuSeconds > BAD_INPUT_LIMITS.processorSeconds;
  return { status: isLate ? null : status, output: out, complaint: err, residentMiB };
}

/** Everything that bad input must never do, as one list; empty when the run was well behaved. */
export function misdeeds(run: MeasuredRun): string[] {
  const text = run.output + run.complaint;
  const found: string[] = [];
  if (run.status === null) found.push('did not end by itself within 10 s of work');
  if (run.residentMiB > BAD_INPUT_LIMITS.residentMiB) found.push(`took ${run.residentMiB} MiB`);
  if (/^\s+at .*:\d+:\d+/m.test(text)) found.push('printed a stack trace');
  if (/internal error(?!s have occurred)|assertion/i.test(text)) found.push('failed an assertion');
  if (!/^[^\p{Cc}]*(\r?\n[^\p{Cc}]*)*$/u.test(text)) found.push('printed control characters');
  return found.length === 0 ? found : [...found, run.complaint.slice(0, 500)];
}

/** A refusal is one line that names the program; that the image is corrupt is told before it. */
export function refusalLines(run: MeasuredRun): string[] {
  const lines = run.complaint.trimEnd().split('\n');
  return lines.filter((line) => !/^qcow2: .* corruption events will be suppressed$/.test(line));
}
