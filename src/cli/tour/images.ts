// SPDX-License-Identifier: Apache-2.0
// Files of the tour: the raw file that everything begins with, command lines that run as
// processes of their own, and the byte-by-byte look at each result.
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { SeededRandom } from '../../base/index.js';
import { packageFile } from '../../host/index.js';
import { DiskModel } from '../../testing/index.js';

const MIB = 1024 * 1024;
const SECTOR = 512;

/** Three quarters of the disk hold data, each sector unlike the others; the rest is zero. */
export function makeContent(size: number, seed: number): DiskModel {
  const model = new DiskModel(size);
  const block = Buffer.alloc(MIB);
  new SeededRandom(seed).fill(block);
  for (let offset = 0, index = 0; offset < size; offset += MIB, index += 1) {
    if (index % 4 === 3) continue;
    for (let at = 0; at < MIB; at += SECTOR) block.writeUInt32LE((offset + at) / SECTOR, at);
    model.write(offset, block.subarray(0, Math.min(MIB, size - offset)));
  }
  return model;
}

export function writeRaw(path: string, model: DiskModel): void {
  const file = openSync(path, 'w');
  try {
    writeSync(file, model.bytes);
  } finally {
    closeSync(file);
  }
}

/** Offset of the first wrong byte of a raw file, its size when that is wrong, or null. */
export function compareRaw(path: string, model: DiskModel): number | null {
  const file = openSync(path, 'r');
  try {
    const buffer = new Uint8Array(MIB);
    let offset = 0;
    for (;;) {
      const count = readSync(file, buffer, 0, MIB, offset);
      if (count === 0) return offset === model.length ? null : offset;
      const wrong = model.firstDifference(buffer.subarray(0, count), offset);
      if (wrong !== null) return wrong;
      offset += count;
    }
  } finally {
    closeSync(file);
  }
}

/** The program that runs here. */
export const MAIN = packageFile('dist/cli/blockwright.js');
const children = new Set<ChildProcess>();

/** Ends what still runs, so that nothing writes to a folder that is being removed. */
export function killChildren(): void {
  for (const child of children) child.kill('SIGKILL');
}

/** Sees to it that a process does not outlive the tour. */
export function adopt(child: ChildProcess): void {
  children.add(child);
  child.once('close', () => children.delete(child));
}

/** Runs a program to its end; throws with its error output when it fails. */
function run(
  program: string,
  args: readonly string[],
  onOutput: (text: string) => void = () => undefined,
): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  adopt(child);
  let complaint = '';
  child.stdout.setEncoding('utf8').on('data', onOutput);
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => {
      if (status === 0) resolve();
      else reject(new Error(`${args.join(' ')}: ${complaint.trim() || `exit status ${status}`}`));
    });
  });
}

/** Runs `blockwright img …` as its own process. */
export function runImg(...args: readonly string[]): Promise<void> {
  return run(process.execPath, [MAIN, 'img', ...args]);
}

/** Runs `blockwright img convert -p …` and tells its progress, 0 to 1. */
export function convertWithProgress(
  args: readonly string[],
  onProgress: (fraction: number) => void,
): Promise<void> {
  return run(process.execPath, [MAIN, 'img', 'convert', '-p', ...args], (text) => {
    const percent = [...text.matchAll(/\((\d+\.\d+)\/100%\)/g)].at(-1)?.[1];
    if (percent !== undefined) onProgress(Number(percent) / 100);
  });
}

/** Path of the real qemu-img, or null. */
export function findQemuImg(): string | null {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, 'qemu-img');
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  return null;
}

/**
 * Who found the image to hold exactly the model's bytes: `blockwright`, and `qemu-img` too when it
 * is there; null when a byte differs or a check finds anything wrong.
 */
export async function verifyImage(
  path: string,
  format: 'raw' | 'qcow2',
  model: DiskModel,
): Promise<string | null> {
  const plain = `${path}.verify`;
  await runImg('convert', '-f', format, '-O', 'raw', path, plain);
  if (compareRaw(plain, model) !== null) return null;
  const real = findQemuImg();
  if (real === null) return 'blockwright';
  if (format === 'qcow2' && !(await isClean(real, path))) return null;
  await run(real, ['convert', '-f', format, '-O', 'raw', path, plain]);
  return compareRaw(plain, model) === null ? 'blockwright, qemu-img' : null;
}

async function isClean(real: string, path: string): Promise<boolean> {
  try {
    await run(real, ['check', '-q', '-f', 'qcow2', path]);
    return true;
  } catch {
    return false;
  }
}
