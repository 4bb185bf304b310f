// SPDX-License-Identifier: Apache-2.0
// `img luks header-backup`: the header and all key material into a file that is made new, that
// nobody else may read, and that is on disk when the command ends. Whoever has it and an old
// password opens the image, even if that password was erased since.

import { open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';

import { errnoText } from '../../../base/index.js';
import { readBackup } from '../../../crypto/luks/index.js';
import { readBackup2 } from '../../../crypto/luks2/index.js';
import { writeJson } from '../../../wire/index.js';
import { CliError } from '../../program.js';
import { withSession } from '../session.js';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, outputFormat } from '../verb.js';
import { findHeader, readArguments } from './command.js';
import type { FoundHeader, LuksCommand } from './command.js';
import { openHeaderPlace } from './place.js';
import type { HeaderPlace } from './place.js';

const OPTIONS = [OBJECT, IMAGE_OPTS, FORMAT, OUTPUT, FORCE_SHARE] as const;
const PRIVATE = 0o600;

export const backupCommand: LuksCommand = {
  options: OPTIONS,
  operands: 'FILE BACKUP',
  async run(args, program) {
    const { image, backup, given } = readArguments(program, args, { specs: OPTIONS, operands: 2 });
    const shape = outputFormat(given.get('output') ?? 'human');
    return withSession(program, async (session) => {
      const forceShare = given.has('share');
      const place = await openHeaderPlace(session, { image, readOnly: true, forceShare });
      const found = await findHeader(place);
      const bytes = await backupOf(place, found);
      await keep(backup, bytes);
      if (shape === 'json') {
        const { version, header } = found;
        const facts = { filename: image.text, backup, version, uuid: header.uuid };
        program.out(`${writeJson({ ...facts, bytes: bytes.length }, { pretty: true })}\n`);
      }
      return 0;
    });
  },
};

function backupOf({ area }: HeaderPlace, found: FoundHeader): Promise<Uint8Array> {
  return found.version === 1
    ? readBackup(area, found.header)
    : readBackup2(area, found.header);
}

async function keep(path: string, bytes: Uint8Array): Promise<void> {
  const fail = (error: unknown): CliError => {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EEXIST') return new CliError(`'${path}' exists already: it is not overwritten`);
    const why = code === undefined ? String(error) : errnoText(code);
    return new CliError(`Could not write '${path}': ${why}`);
  };
  const file = await open(path, 'wx', PRIVATE).catch((error: unknown) => {
    throw fail(error);
  });
  try {
    await file.writeFile(bytes);
    await file.sync();
    await file.close();
    await syncFolder(dirname(path));
  } catch (error) {
    await file.close().catch(() => undefined);
    await unlink(path).catch(() => undefined);
    throw fail(error);
  }
}

/** So that the file's name is there after a power cut as well. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
