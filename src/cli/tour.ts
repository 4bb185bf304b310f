// SPDX-License-Identifier: Apache-2.0
// `blockwright tour` (`npm start`): the main job in under a minute, on images in a temporary
// folder that is removed on success, failure and SIGINT. A daemon is started as a process of its
// own; a typed client drives it over its QMP socket, as any other client would. The guest is a
// seeded writer inside the daemon, because there is no NBD export yet.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseSize, systemClock } from '../base/index.js';
import { runTourDaemon } from './tour/daemon.js';
import { createDisplay, type Display } from './tour/display.js';
import { killChildren } from './tour/images.js';
import { playTour } from './tour/scene.js';

const USAGE = `usage: blockwright tour [--progress auto|bars|lines|json] [--size MIB] [--seed N]
`;

interface TourRequest {
  readonly mode: 'bars' | 'lines' | 'json';
  /** Virtual size of the disks, in bytes. */
  readonly size: number;
  readonly seed: number;
}

const OPTIONS = {
  progress: { type: 'string', default: 'auto' },
  size: { type: 'string', default: '64' },
  seed: { type: 'string', default: '1' },
  help: { type: 'boolean', default: false },
} as const;

const MIB = 1024 * 1024;

/** Largest disk of the tour, in MiB: its model is kept in memory several times. */
const LARGEST_MIB = 1024;

/** Text instead of a run; help that was asked for is no failure. */
interface Refusal {
  readonly text: string;
  readonly helped: boolean;
}

function refusal(text: string): Refusal {
  return { text, helped: false };
}

/** The request, or what to print instead. */
function parse(args: readonly string[]): TourRequest | Refusal {
  let values;
  try {
    ({ values } = parseArgs({ args: [...args], options: OPTIONS }));
  } catch (error) {
    return refusal(`blockwright tour: ${(error as Error).message}\n${USAGE}`);
  }
  if (values.help) return { text: USAGE, helped: true };
  const mib = mebibytes(values.size);
  const seed = Number(values.seed);
  if (!Number.isInteger(mib) || mib < 1 || mib > LARGEST_MIB) {
    const wanted = `1 to ${LARGEST_MIB} is wanted, in MiB`;
    return refusal(`blockwright tour: --size ${values.size}: ${wanted}\n`);
  }
  if (!Number.isInteger(seed) || seed < 0) {
    return refusal(`blockwright tour: --seed ${values.seed}: a whole number is wanted\n`);
  }
  const auto = process.stdout.isTTY ? 'bars' : 'lines';
  const mode = values.progress === 'auto' ? auto : values.progress;
  if (mode !== 'bars' && mode !== 'lines' && mode !== 'json') return refusal(USAGE);
  return { mode, size: mib * MIB, seed };
}

/** Runs the tour; 0 only if every result was verified. */
/** A plain number counts MiB; `64M` and `1G` say so themselves. NaN when it is neither. */
function mebibytes(text: string): number {
  const parsed = parseSize(text, MIB);
  return parsed.ok ? parsed.bytes / MIB : Number.NaN;
}

export async function runTour(args: readonly string[]): Promise<number> {
  const [first, socket] = args;
  if (first === '--serve' && socket !== undefined) return runTourDaemon(socket);
  const request = parse(args);
  if ('text' in request) {
    (request.helped ? process.stdout : process.stderr).write(request.text);
    return request.helped ? 0 : 1;
  }
  const folder = mkdtempSync(join(tmpdir(), 'blockwright-tour-'));
  const remove = (): void => {
    killChildren();
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  };
  const stop = (signal: NodeJS.Signals): void => {
    process.exit(signal === 'SIGINT' ? 130 : 143);
  };
  // Also when the reader of a pipe has gone away, which ends the program.
  process.once('exit', remove);
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  const display = createDisplay(request.mode, (text) => void process.stdout.write(text));
  try {
    return await tourIn(folder, request, display);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    process.off('exit', remove);
    remove();
  }
}

/** Twice the time that a slow machine needs: a hang is a failure, not a wait. */
const TIME_LIMIT_MS = 120_000;

function inTime<T>(work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = systemClock.after(TIME_LIMIT_MS, () => {
      reject(new Error(`not done after ${TIME_LIMIT_MS / 1000} s`));
    });
    work.then(resolve, reject).finally(cancel);
  });
}

async function tourIn(folder: string, request: TourRequest, display: Display): Promise<number> {
  try {
    const { size, seed } = request;
    const results = await inTime(playTour({ folder, size, seed, display }));
    display.results(results);
    const failed = results.filter((result) => result.verified === null);
    if (failed.length === 0) return 0;
    process.stderr.write(
      `blockwright tour: wrong bytes after ${failed.map(({ job }) => job).join(', ')}; ` +
        `seed ${request.seed} replays the guest\n`,
    );
  } catch (error) {
    process.stderr.write(`blockwright tour: ${(error as Error).message}\n`);
  }
  return 1;
}
