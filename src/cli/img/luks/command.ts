// SPDX-License-Identifier: Apache-2.0
// What the commands of `img luks` share: their arguments, and the header that they begin with.

import { BlockError } from '../../../base/index.js';
import { HEADER_BYTES, parseAnyLuksHeader, parseLuksHeader } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { findLuks2Header } from '../../../crypto/luks2/index.js';
import type { Luks2Header } from '../../../crypto/luks2/index.js';
import type { OptionSpec } from '../../getopt.js';
import { CliError } from '../../program.js';
import type { Program } from '../../program.js';
import type { ImageName } from '../session.js';
import { readVerbOptions, refuseFormatWithOptions, usageError } from '../verb.js';
import type { VerbCommand } from '../verb.js';
import type { HeaderPlace } from './place.js';

export interface LuksCommand extends VerbCommand {
  /** The exit status. */
  run(args: readonly string[], program: Program): Promise<number>;
}

export interface LuksArguments {
  readonly image: ImageName;
  /** The file of a backup, where there is to be one. */
  readonly backup: string;
  /** Options by name; empty where they take no value. */
  readonly given: ReadonlyMap<string, string>;
}

/** The image, and a backup where `operands` is 2. */
export function readArguments(
  program: Program,
  args: readonly string[],
  { specs, operands }: { readonly specs: readonly OptionSpec[]; readonly operands: 1 | 2 },
): LuksArguments {
  const given = new Map<string, string>();
  const words = readVerbOptions(program, { args, specs }, (name, value) => {
    given.set(name, value);
  });
  const [text, backup = ''] = words;
  if (text === undefined || words.length !== operands) {
    const what = operands === 1 ? 'one image file name' : 'an image and the file of its backup';
    throw usageError(program, `Expecting ${what}`);
  }
  const format = given.get('format') ?? null;
  const imageOptions = given.has('image-opts');
  refuseFormatWithOptions({ format, imageOptions });
  return { image: { text, format, imageOptions }, backup, given };
}

export type FoundHeader =
  | { readonly version: 1; readonly header: LuksHeader }
  | { readonly version: 2; readonly header: Luks2Header };

/** Of either version; of version 2 also where only the second copy is left. */
export async function findHeader(place: HeaderPlace): Promise<FoundHeader> {
  const { area, length, name } = place;
  const bytes = await area.read(0, Math.min(HEADER_BYTES, length));
  return named(name, async () => {
    if (place.inQcow2) return { version: 1, header: parseLuksHeader(bytes, { detached: false }) };
    const second = await findLuks2Header(area, length);
    if (second !== null) return { version: 2, header: second };
    return { version: 1, header: parseAnyLuksHeader(bytes) };
  });
}

/** What is wrong with a file, with its name. */
export async function named<T>(name: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`'${name}': ${error.message}`, 1, error);
  }
}
