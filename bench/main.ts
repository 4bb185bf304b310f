// SPDX-License-Identifier: Apache-2.0
// `blockwright bench`: runs the questions one after another, prints a table, writes JSON.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bench as backup } from './backup.js';
import { bench as commit } from './commit.js';
import { bench as convert } from './convert.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { findProgram, ourCommand } from './harness.js';
import { bench as luks } from './luks.js';
import { bench as metadata } from './metadata.js';
import { bench as mirror } from './mirror.js';
import { json, table } from './report.js';
import { bench as speed } from './speed.js';
import { bench as stream } from './stream.js';

const BENCHES: readonly Bench[] = [
  convert, luks, stream, commit, mirror, backup, speed, metadata,
];
const PEERS = ['qemu-img', 'qemu-storage-daemon', 'qemu-io', 'cryptsetup'];
const MIB = 1024 * 1024;

const USAGE = `usage: npm run bench -- [question…] [options]
questions: ${BENCHES.map(({ name }) => name).join(', ')} (all of them unless named)
  --size MIB     virtual size of the disks (default 512, a multiple of 8)
  --rounds N     timed rounds of each contestant (default 5)
  --dir DIR      where the scratch folder is made (default: the system's)
  --json FILE    also write every figure to FILE
  --no-peers     measure Blockwright alone
`;

/** Runs the benches that the arguments name; gives the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  const request = parse(args);
  if ('text' in request) {
    (request.helped ? process.stdout : process.stderr).write(request.text);
    return request.helped ? 0 : 1;
  }
  const folder = mkdtempSync(join(request.parent, 'blockwright-bench-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const interrupt = (): never => {
    remove();
    process.exit(130);
  };
  process.once('SIGINT', interrupt);
  try {
    return await runAll(request, folder);
  } finally {
    process.off('SIGINT', interrupt);
    remove();
  }
}

interface BenchRequest {
  readonly benches: readonly Bench[];
  readonly size: number;
  readonly rounds: number;
  readonly parent: string;
  readonly jsonFile: string | undefined;
  readonly peers: boolean;
}

const OPTIONS = {
  size: { type: 'string', default: '512' },
  rounds: { type: 'string', default: '5' },
  dir: { type: 'string' },
  json: { type: 'string' },
  'no-peers': { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

/** `64`, `64M` or `1G`; NaN when it is none of them. */
function mebibytes(text: string): number {
  const [, digits, unit] = /^(\d+)([MG]?)$/i.exec(text) ?? [];
  if (digits === undefined) return Number.NaN;
  return Number(digits) * (unit?.toUpperCase() === 'G' ? 1024 : 1);
}

/** Text instead of a run; help that was asked for is no failure. */
interface Refusal {
  readonly text: string;
  readonly helped: boolean;
}

function refusal(text: string): Refusal {
  return { text, helped: false };
}

/** The request, or what to print instead. */
function parse(args: readonly string[]): BenchRequest | Refusal {
  let parsed;
  try {
    parsed = parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
  } catch (error) {
    return refusal(`blockwright bench: ${(error as Error).message}\n${USAGE}`);
  }
  const { values, positionals } = parsed;
  if (values.help) return { text: USAGE, helped: true };
  const unknown = positionals.find((name) => !BENCHES.some((item) => item.name === name));
  if (unknown !== undefined) {
    return refusal(`blockwright bench: no question '${unknown}'\n${USAGE}`);
  }
  const mib = mebibytes(values.size);
  const rounds = Number(values.rounds);
  if (!Number.isInteger(mib) || mib < 8 || mib % 8 !== 0 || mib > 1 << 20) {
    return refusal(`blockwright bench: --size ${values.size}: a multiple of 8 is wanted, in MiB\n`);
  }
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1000) {
    const wanted = 'a number from 1 to 1000 is wanted';
    return refusal(`blockwright bench: --rounds ${values.rounds}: ${wanted}\n`);
  }
  const named = BENCHES.filter((item) => positionals.includes(item.name));
  return {
    benches: named.length > 0 ? named : BENCHES,
    size: mib * MIB,
    rounds,
    parent: values.dir ?? tmpdir(),
    jsonFile: values.json,
    peers: !values['no-peers'],
  };
}

async function runAll(request: BenchRequest, folder: string): Promise<number> {
  const peers = new Map(
    PEERS.map((name) => [name, request.peers ? findProgram(name) : null] as const),
  );
  const context: BenchContext = {
    folder,
    size: request.size,
    rounds: request.rounds,
    ours: ourCommand(),
    peer: (name) => peers.get(name) ?? null,
    log: (line) => process.stderr.write(`${line}\n`),
  };
  for (const [name, path] of peers) {
    if (path === null) context.log(`${name}: not used, Blockwright is measured without it`);
  }
  const results: Result[] = [];
  for (const bench of request.benches) results.push(...(await bench.run(context)));
  report(results, peers, request.jsonFile);
  return results.some((result) => result.verified === false) ? 1 : 0;
}

function report(
  results: readonly Result[],
  peers: ReadonlyMap<string, string | null>,
  jsonFile: string | undefined,
): void {
  process.stdout.write(`${table(results)}\n\n`);
  process.stdout.write(
    'Medians of wall time; ratio = peer ÷ ours, above 1 Blockwright is faster. Sources are in\n' +
      'the page cache, targets are new, and everything is written back between runs.\n',
  );
  if (results.some(({ question }) => question.includes('luks'))) {
    process.stdout.write(
      'Copies of luks images: what starting and unlocking take counts as start-up. cpu is\n' +
        'processor time of the command (or the daemon), in seconds, and its two ratios follow.\n',
    );
  }
  if (results.some(({ question }) => question.startsWith('block'))) {
    process.stdout.write(
      'Jobs: ours are on disk when they conclude, and that flush is in the figures; the\n' +
        'reference flushes mirrors and commits of the active layer only. "durable" is the\n' +
        'ratio with a flush of the target in both times; cpu is processor time of the daemon,\n' +
        'in seconds.\n',
    );
  }
  const starts = new Set(
    results.filter((result) => result.startUpIncluded.ours > 0).map((result) => {
      const { ours, peer } = result.startUpIncluded;
      const ms = (seconds: number): string => `${(seconds * 1000).toFixed(0)} ms`;
      return `${ms(ours)} ours${peer === null ? '' : `, ${ms(peer)} peer`}`;
    }),
  );
  for (const text of starts) process.stdout.write(`Start-up inside commands: ${text}.\n`);
  if (jsonFile === undefined) return;
  const tools = Object.fromEntries(
    [...peers].flatMap(([name, path]) => (path === null ? [] : [[name, version(path)]])),
  );
  writeFileSync(jsonFile, json(results, tools));
}

function version(path: string): string {
  return execFileSync(path, ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? '';
}
