// SPDX-License-Identifier: Apache-2.0
// Encrypted images for the benches: names of both tools for them, and how they are made.
import { type Cost, measureCommand } from './costs.js';
import type { BenchContext } from './harness.js';

export const PASSWORD = 'open sesame';
export const SECRET = ['--object', `secret,id=bench,data=${PASSWORD}`];
/** The reference measures its own processor time and gives up when the machine is busy. */
const TRIES = 20;

/** img of both; null for the peer when it is not there. */
export interface Tools {
  readonly ours: readonly string[];
  readonly peer: readonly string[] | null;
}

export function imgTools(context: BenchContext): Tools {
  const real = context.peer('qemu-img');
  return { ours: [...context.ours, 'img'], peer: real === null ? null : [real] };
}

/** Whoever is the reference where there is one. */
export function referenceOf({ ours, peer }: Tools): readonly string[] {
  return peer ?? ours;
}

/** Options that open an image; the secret is SECRET. */
export function encrypted(format: 'luks' | 'qcow2', filename: string): string {
  const prefix = format === 'luks' ? '' : 'encrypt.';
  return `driver=${format},${prefix}key-secret=bench,file.filename=${filename}`;
}

export function raw(filename: string): string {
  return `driver=raw,file.filename=${filename}`;
}

export interface NewImage {
  readonly path: string;
  readonly size: number;
  readonly format: 'luks' | 'qcow2';
  /** As of `-f luks -o`, without the secret. */
  readonly options: readonly string[];
}

/** What the first try that went well cost. */
export async function create(tool: readonly string[], image: NewImage): Promise<Cost> {
  const { path, size, format } = image;
  const prefix = format === 'luks' ? '' : 'encrypt.';
  const kind = format === 'luks' ? [] : ['encrypt.format=luks'];
  const named = ['key-secret=bench', ...image.options].map((option) => `${prefix}${option}`);
  const options = ['-f', format, '-o', [...kind, ...named].join(',')];
  for (let tries = 1; ; tries += 1) {
    try {
      const command = [...tool, 'create', '-q', ...SECRET, ...options, path, `${size}`];
      return await measureCommand(command);
    } catch (error) {
      if (tries === TRIES) throw error;
    }
  }
}
