// SPDX-License-Identifier: Apache-2.0
// What the tour shows while it runs: bars on a terminal, plain lines when piped, JSON lines when
// asked. One object for each of the three; the tour does not know which it talks to.

export interface JobProgress {
  readonly job: string;
  /** Bytes, as the job counts them. */
  readonly done: number;
  readonly total: number;
}

export interface JobResult {
  readonly job: string;
  readonly bytes: number;
  readonly seconds: number;
  /** Bytes a second, or null when the job was not limited. */
  readonly limit: number | null;
  /** Who compared the result byte by byte, or null when it differed. */
  readonly verified: string | null;
}

export interface Display {
  note(text: string): void;
  progress(progress: JobProgress): void;
  results(results: readonly JobResult[]): void;
}

export type Write = (text: string) => void;

const MIB = 1024 * 1024;
const BAR_COLUMNS = 32;
/** A piped run prints a line for each quarter. */
const LINE_STEPS = 4;

export function createDisplay(mode: 'bars' | 'lines' | 'json', write: Write): Display {
  if (mode === 'json') return new JsonDisplay(write);
  return mode === 'bars' ? new BarDisplay(write) : new LineDisplay(write);
}

function fraction({ done, total }: JobProgress): number {
  return total === 0 ? 0 : Math.min(1, done / total);
}

class JsonDisplay implements Display {
  constructor(private readonly write: Write) {}

  note(text: string): void {
    this.#line({ event: 'note', text });
  }

  progress(progress: JobProgress): void {
    this.#line({ event: 'progress', ...progress });
  }

  results(results: readonly JobResult[]): void {
    for (const result of results) this.#line({ event: 'result', ...result });
  }

  #line(value: object): void {
    this.write(`${JSON.stringify(value)}\n`);
  }
}

class LineDisplay implements Display {
  readonly #shown = new Map<string, number>();
  constructor(private readonly write: Write) {}

  note(text: string): void {
    this.write(`${text}\n`);
  }

  progress(progress: JobProgress): void {
    const step = Math.floor(fraction(progress) * LINE_STEPS);
    if ((this.#shown.get(progress.job) ?? 0) >= step) return;
    this.#shown.set(progress.job, step);
    const mib = (bytes: number): string => (bytes / MIB).toFixed(0);
    this.write(
      `  ${progress.job}: ${(step * 100) / LINE_STEPS} % ` +
        `(${mib(progress.done)} of ${mib(progress.total)} MiB)\n`,
    );
  }

  results(results: readonly JobResult[]): void {
    this.write(resultTable(results));
  }
}

/** Running bars stand below the notes; a note is written above them. */
class BarDisplay implements Display {
  readonly #running = new Map<string, JobProgress>();
  #drawn = 0;
  constructor(private readonly write: Write) {}

  note(text: string): void {
    this.#erase();
    this.write(`${text}\n`);
    this.#draw();
  }

  progress(progress: JobProgress): void {
    this.#erase();
    this.#running.set(progress.job, progress);
    if (progress.total > 0 && progress.done >= progress.total) {
      this.write(`${bar(progress)}\n`);
      this.#running.delete(progress.job);
    }
    this.#draw();
  }

  results(results: readonly JobResult[]): void {
    this.#erase();
    this.#running.clear();
    this.write(resultTable(results));
  }

  #erase(): void {
    if (this.#drawn > 0) this.write(`\x1b[${this.#drawn}A\x1b[0J`);
    this.#drawn = 0;
  }

  #draw(): void {
    for (const progress of this.#running.values()) this.write(`${bar(progress)}\n`);
    this.#drawn = this.#running.size;
  }
}

function bar(progress: JobProgress): string {
  const share = fraction(progress);
  const full = Math.round(share * BAR_COLUMNS);
  const drawn = '█'.repeat(full) + '░'.repeat(BAR_COLUMNS - full);
  return `  ${progress.job.padEnd(10)} ${drawn} ${(share * 100).toFixed(0).padStart(3)} %`;
}

const HEADINGS = ['job', 'data', 'seconds', 'MiB/s', 'limit', 'verified'];

/** The closing table: job, data, seconds, MiB/s, limit, verified. */
export function resultTable(results: readonly JobResult[]): string {
  const rows = results.map((result) => [
    result.job,
    `${(result.bytes / MIB).toFixed(0)} MiB`,
    result.seconds.toFixed(2),
    (result.bytes / MIB / result.seconds).toFixed(1),
    result.limit === null ? '-' : `${(result.limit / MIB).toFixed(0)} MiB/s`,
    result.verified ?? 'NO',
  ]);
  const all = [HEADINGS, ...rows];
  const widths = HEADINGS.map((_, column) =>
    Math.max(...all.map((row) => row[column]?.length ?? 0)),
  );
  const lines = all.map((row) =>
    row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd(),
  );
  return `\n${lines.join('\n')}\n`;
}
