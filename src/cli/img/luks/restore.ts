// SPDX-License-Identifier: Apache-2.0
// `img luks header-restore`: puts a backup of the header back, with the image for itself alone.
//
// The backup is checked as a whole before anything is written. What would put a key out of reach
// takes --force: no header to replace, another UUID, another payload or master key. How a power
// cut is survived is told in crypto/luks/restore.ts.

import { BlockError, CRYPTO_LIMITS } from '../../../base/index.js';
import { parseBackup, restoreHeader } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import { isLuks2 } from '../../../crypto/luks2/index.js';
import { keyBytesOf } from '../../../crypto/index.js';
import { CliError } from '../../program.js';
import type { Session } from '../session.js';
import { withSession } from '../session.js';
import { FORMAT, IMAGE_OPTS, OBJECT, QUIET } from '../verb.js';
import { findHeader, named, readArguments } from './command.js';
import type { LuksCommand } from './command.js';
import { hex } from './facts.js';
import { openHeaderPlace } from './place.js';
import type { HeaderPlace } from './place.js';

const OPTIONS = [OBJECT, IMAGE_OPTS, FORMAT, QUIET, { name: 'force', long: 'force' }] as const;

export const restoreCommand: LuksCommand = {
  options: OPTIONS,
  operands: 'FILE BACKUP',
  async run(args, program) {
    const { image, backup, given } = readArguments(program, args, { specs: OPTIONS, operands: 2 });
    return withSession(program, async (session) => {
      const bytes = await readBackupFile(session, backup);
      if (isLuks2(bytes)) {
        throw new CliError(`'${backup}': headers of LUKS version 2 are not restored here`);
      }
      const wanted = await named(backup, () => parseBackup(bytes));
      const request = { image, readOnly: false, forceShare: false } as const;
      const place = await openHeaderPlace(session, request);
      if (place.length < bytes.length) {
        const text = `'${place.name}' has ${place.length} bytes, the backup ${bytes.length}`;
        throw new CliError(`${text}: it does not fit`);
      }
      if (!given.has('force')) await refuseOther(place, wanted);
      await restoreHeader(place.area, bytes);
      await place.close();
      if (!given.has('quiet')) program.out('Header restored.\n');
      return 0;
    });
  },
};

async function readBackupFile({ host }: Session, path: string): Promise<Uint8Array> {
  try {
    return await host.readWhole(path, CRYPTO_LIMITS.headerAreaBytes);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Could not read '${path}': ${error.message}`, 1, error);
  }
}

async function refuseOther(place: HeaderPlace, wanted: LuksHeader): Promise<void> {
  let present: LuksHeader;
  try {
    const found = await findHeader(place);
    if (found.version === 2) throw new CliError(`'${place.name}': its header is of LUKS version 2`);
    present = found.header;
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    throw new CliError(`${error.message}; --force restores the header all the same`);
  }
  const other = differenceOf(present, wanted);
  if (other === null) return;
  throw new CliError(
    `The backup has another ${other} than the header of '${place.name}'; ` +
      '--force restores it all the same',
  );
}

/** What makes it the header of another image, or null. */
function differenceOf(present: LuksHeader, wanted: LuksHeader): string | null {
  const facts = (header: LuksHeader): Readonly<Record<string, string | number>> => ({
    UUID: header.uuid,
    'payload offset': header.payloadOffset,
    'key size': keyBytesOf(header.spec),
    cipher: JSON.stringify(header.spec),
    'master key': hex(header.mkDigest),
  });
  const old = facts(present);
  for (const [name, value] of Object.entries(facts(wanted))) {
    if (old[name] === value) continue;
    return typeof value === 'number' || name === 'UUID' ? `${name} (${value})` : name;
  }
  return null;
}
