// SPDX-License-Identifier: Apache-2.0
// `img luks header-restore`: puts a backup of the header back, with the image for itself alone.
//
// The backup is checked as a whole before anything is written. What would put a key out of reach
// takes --force: no header to replace, another version, UUID, payload or master key, a backup
// without a keyslot. How a power cut is survived is told in restore.ts of crypto/luks and luks2.

import { BlockError, CRYPTO_LIMITS, errnoText } from '../../../base/index.js';
import { backupBytes, parseBackup } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import {
  isBackup2,
  ownKeyslots,
  parseBackup2,
  restoreHeader1,
  restoreHeader2,
} from '../../../crypto/luks2/index.js';
import type { Luks2Backup, Luks2Header } from '../../../crypto/luks2/index.js';
import { keyBytesOf } from '../../../crypto/index.js';
import { writeJson } from '../../../wire/index.js';
import { CliError } from '../../program.js';
import type { Session } from '../session.js';
import { withSession } from '../session.js';
import { FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, outputFormat, QUIET } from '../verb.js';
import { findHeader, named, readArguments } from './command.js';
import type { FoundHeader, LuksCommand } from './command.js';
import { hex } from './facts.js';
import { openHeaderPlace } from './place.js';
import type { HeaderPlace } from './place.js';

const FORCE = { name: 'force', long: 'force' } as const;
const OPTIONS = [OBJECT, IMAGE_OPTS, FORMAT, OUTPUT, QUIET, FORCE] as const;

export const restoreCommand: LuksCommand = {
  options: OPTIONS,
  operands: 'FILE BACKUP',
  async run(args, program) {
    const { image, backup, given } = readArguments(program, args, { specs: OPTIONS, operands: 2 });
    const shape = outputFormat(given.get('output') ?? 'human');
    return withSession(program, async (session) => {
      const wanted = await readBackupFile(session, backup);
      const request = { image, readOnly: false, forceShare: false } as const;
      const place = await openHeaderPlace(session, request);
      requireRoom(place, wanted);
      const force = given.has('force');
      if (!force) await refuseOther(place, wanted);
      await named(place.name, () => restore(place, wanted, force));
      await place.close();
      if (shape === 'json') {
        const { version, header } = wanted;
        const facts = { filename: image.text, backup, version, uuid: header.uuid };
        program.out(`${writeJson(facts, { pretty: true })}\n`);
      } else if (!given.has('quiet')) program.out('Header restored.\n');
      return 0;
    });
  },
};

type Backup =
  | { readonly version: 1; readonly header: LuksHeader; readonly bytes: Uint8Array }
  | ({ readonly version: 2 } & Luks2Backup);

async function readBackupFile({ host }: Session, path: string): Promise<Backup> {
  let bytes: Uint8Array;
  try {
    bytes = await host.readWhole(path, CRYPTO_LIMITS.headerAreaBytes);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const { errno } = error.context;
    const why = errno === undefined ? error.message : errnoText(errno);
    throw new CliError(`Could not read '${path}': ${why}`);
  }
  return named(path, async () => {
    if (await isBackup2(bytes)) return { version: 2, ...(await parseBackup2(bytes)) };
    const header = parseBackup(bytes);
    return { version: 1, header, bytes: bytes.subarray(0, backupBytes(header)) };
  });
}

function requireRoom({ name, length, inQcow2 }: HeaderPlace, { version, bytes }: Backup): void {
  if (inQcow2 && version === 2) {
    throw new CliError(`'${name}' is a qcow2 image: its header is one of LUKS version 1`);
  }
  if (length >= bytes.length) return;
  throw new CliError(
    `'${name}' has ${length} bytes for a header, the backup ${bytes.length}: it does not fit`,
  );
}

function restore(place: HeaderPlace, wanted: Backup, force: boolean): Promise<void> {
  if (wanted.version === 2) return restoreHeader2(place, wanted, { force });
  return restoreHeader1(place, wanted.bytes);
}

async function refuseOther(place: HeaderPlace, wanted: Backup): Promise<void> {
  let found: FoundHeader;
  try {
    found = await findHeader(place);
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    throw new CliError(`${error.message}; --force restores the header all the same`);
  }
  const other = differenceOf(factsOf(found), factsOf(wanted));
  if (other !== null) {
    throw new CliError(
      `The backup has another ${other} than the header of '${place.name}'; ` +
        '--force restores it all the same',
    );
  }
  if (keyslotCount(wanted) > 0 || keyslotCount(found) === 0) return;
  throw new CliError('The backup has no active keyslot; --force restores it all the same');
}

function keyslotCount(found: FoundHeader): number {
  if (found.version === 2) return ownKeyslots(found.header).length;
  return found.header.keyslots.filter(({ active }) => active).length;
}

type IdentityFacts = Readonly<Record<string, string | number>>;

function factsOf(found: FoundHeader): IdentityFacts {
  return found.version === 1 ? factsOf1(found.header) : factsOf2(found.header);
}

function factsOf1(header: LuksHeader): IdentityFacts {
  return {
    'LUKS version': 1,
    UUID: header.uuid,
    'payload offset': header.payloadOffset,
    'key size': keyBytesOf(header.spec),
    cipher: JSON.stringify(header.spec),
    'master key': hex(header.mkDigest),
  };
}

function factsOf2({ uuid, segment, digest }: Luks2Header): IdentityFacts {
  return {
    'LUKS version': 2,
    UUID: uuid,
    'payload offset': segment.offset,
    'payload size': segment.size ?? 0,
    cipher: segment.encryption,
    'sector size': segment.sectorBytes,
    'start of initial vectors': segment.vectorOffset,
    'master key': hex(digest.value),
  };
}

/** What makes it the header of another image, or null. */
function differenceOf(old: IdentityFacts, wanted: IdentityFacts): string | null {
  for (const [name, value] of Object.entries(wanted)) {
    if (old[name] === value) continue;
    return typeof value === 'number' || name === 'UUID' ? `${name} (${value})` : name;
  }
  return null;
}
