// SPDX-License-Identifier: Apache-2.0
// The golden images of images/, unpacked into a temporary folder.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

export interface GoldenImage {
  readonly file: string;
  readonly format: 'qcow2' | 'raw' | 'luks';
  readonly status: 'supported' | 'unsupported' | 'hostile';
  readonly proves: string;
  readonly commands: readonly string[];
  /** Other images of the folder that it refers to. */
  readonly needs?: readonly string[];
  /** Option that names its secret, whose data is that of `goldenSecret`. */
  readonly secret?: string;
  /** Word of the line that refuses it, any case. */
  readonly refusal?: string;
  readonly readOnlyWorks?: boolean;
  readonly bytes: number;
  readonly sha256: string;
  readonly virtualSize?: number;
  readonly contentSha256?: string;
}

const FOLDER = new URL('../../images/', import.meta.url).pathname;

export const goldenImages: readonly GoldenImage[] = (
  JSON.parse(readFileSync(join(FOLDER, 'manifest.json'), 'utf8')) as { images: GoldenImage[] }
).images;

export const goldenSecret = { 'qom-type': 'secret', id: 'key', data: 'golden' } as const;

export interface GoldenFolder {
  readonly path: string;
  remove(): void;
}

export function unpackGolden(images: readonly GoldenImage[] = goldenImages): GoldenFolder {
  const path = mkdtempSync(join(tmpdir(), 'golden-'));
  for (const { file } of images) {
    writeFileSync(join(path, file), gunzipSync(readFileSync(join(FOLDER, `${file}.gz`))));
  }
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
