// SPDX-License-Identifier: Apache-2.0
// Where the LUKS header of an image lies, opened as plain bytes: the driver would refuse a header
// that is broken, and cannot be asked for the one that is to be replaced.
//
// A name is that of an image or of a detached header. With --image-opts, or with a json: name, the
// options are those of the driver `luks`, whose `header` or else `file` it is, of `qcow2`, whose
// `file` has it among its clusters, or of a node that begins with a header. Without a format a file
// that begins as qcow2 images do is one.

import { assert, BlockError, must, Permission } from '../../../base/index.js';
import { parseFilename, readRequest } from '../../../block/index.js';
import { BLOCKDEV_BASE } from '../../../block/options.js';
import type { Backend, EncryptionHeaderPlace, Node, OpenPolicy } from '../../../block/index.js';
import type { LuksArea } from '../../../crypto/luks/index.js';
import { driverOptions } from '../../../drivers/options-catalog.js';
import type { KeyvalTree } from '../../../schema/index.js';
import { CliError } from '../../program.js';
import { attachUser, openImage } from '../session.js';
import type { ImageName, Session } from '../session.js';
import { named } from './command.js';

const QCOW2_MAGIC = Buffer.from([0x51, 0x46, 0x49, 0xfb]);

export interface HeaderPlace {
  /** As it was given. */
  readonly name: string;
  readonly area: LuksArea;
  /** Bytes that the header and its key material may take. */
  readonly length: number;
  /** The header is that of a qcow2 image: it is of version 1, and names no payload. */
  readonly inQcow2: boolean;
  /** `key-secret` of the image's options. */
  readonly secret: string | null;
  /** `key-derivation-limit` of them. */
  readonly limitSeconds: number | undefined;
  close(): Promise<void>;
}

type Unlocking = Pick<HeaderPlace, 'secret' | 'limitSeconds'>;
/** Null: as its first bytes say. */
type Format = 'raw' | 'qcow2' | null;

export interface PlaceRequest {
  readonly image: ImageName;
  readonly readOnly: boolean;
  readonly forceShare: boolean;
}

/** Read-write it is for this user alone, so that no key changes under another. */
export async function openHeaderPlace(
  session: Session,
  { image, readOnly, forceShare }: PlaceRequest,
): Promise<HeaderPlace> {
  const policy: OpenPolicy = { forceShare, noBacking: true };
  const { node, format, ...unlocking } = await openBytes(session, { image, readOnly, policy });
  const { consistentRead, write, all } = Permission;
  const taken = consistentRead | (readOnly ? 0 : write);
  const shared = readOnly ? all : 0;
  const user = await attachUser(session, { node, name: image.text, taken, shared });
  const inQcow2 = (format ?? (await formatOf(node))) === 'qcow2';
  const whole = { offset: 0, length: node.length };
  const place = inQcow2 ? await named(image.text, () => locate(session, node)) : whole;
  return {
    name: image.text,
    area: areaOf(user, image.text, place),
    length: place.length,
    inQcow2,
    ...unlocking,
    close: () => user.detach(),
  };
}

async function formatOf(node: Node): Promise<Format> {
  const head = new Uint8Array(Math.min(QCOW2_MAGIC.length, node.length));
  await node.read(readRequest(0, head));
  return Buffer.compare(head, QCOW2_MAGIC) === 0 ? 'qcow2' : 'raw';
}

async function locate({ registry }: Session, node: Node): Promise<EncryptionHeaderPlace> {
  const driver = await registry.load('qcow2');
  return must(await driver.locateEncryptionHeader?.(node), 'qcow2 images can have one');
}

async function openBytes(
  session: Session,
  request: { readonly image: ImageName; readonly readOnly: boolean; readonly policy: OpenPolicy },
): Promise<{ readonly node: Node; readonly format: Format } & Unlocking> {
  const { image, readOnly, policy } = request;
  requireFormat(image.format);
  const isJson = !image.imageOptions && image.text.startsWith('json:');
  if (!image.imageOptions && !isJson) {
    const asRaw = { ...image, format: 'raw' };
    const node = await openImage(session, { image: asRaw, readOnly, policy });
    const format = formatBy(image.format ?? undefined);
    return { node, format, secret: null, limitSeconds: undefined };
  }
  const { openByOptions } = await import('../options/open.js');
  try {
    const tree = await treeOf(session, image);
    const node = await openByOptions(session, { tree: bytesOf(tree), readOnly, policy });
    return { node, format: formatBy(tree['driver']), ...unlockingOf(tree) };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Could not open '${image.text}': ${error.message}`, 1, error);
  }
}

/** Options of --image-opts or of a json: name. */
async function treeOf({ program }: Session, image: ImageName): Promise<KeyvalTree> {
  if (image.imageOptions) {
    const { optionTree } = await import('../options/list.js');
    return optionTree(image.text, program, 'file');
  }
  const { asTexts } = await import('../options/open.js');
  const parsed = parseFilename(image.text);
  const tree = parsed.kind === 'options' ? asTexts(parsed.options) : {};
  if (image.format === null) return tree;
  if (tree['driver'] === undefined) return { ...tree, driver: image.format };
  throw new BlockError('invalid-option', 'Driver specified twice');
}

function unlockingOf(tree: KeyvalTree): Unlocking {
  const { driver, encrypt } = tree;
  const own = driver === 'luks' || encrypt === undefined ? tree : encrypt;
  const options = typeof own === 'object' ? (own as KeyvalTree) : {};
  const { 'key-secret': secret, 'key-derivation-limit': limit } = options;
  if (limit !== undefined && !(typeof limit === 'string' && /^\d{1,9}$/.test(limit))) {
    throw new BlockError('invalid-option', "Parameter 'key-derivation-limit' expects a number");
  }
  return {
    secret: typeof secret === 'string' ? secret : null,
    limitSeconds: limit === undefined ? undefined : Number(limit),
  };
}

/** Options of the bytes that the header lies in; what every node has is theirs. */
function bytesOf(tree: KeyvalTree): KeyvalTree {
  const { driver, header, file } = tree;
  if (driver !== 'luks' && driver !== 'qcow2' && driver !== undefined) return tree;
  if (driver !== undefined) refuseUnknown(driver, tree);
  const below = (driver === 'qcow2' ? undefined : header) ?? file;
  if (below === undefined) throw new BlockError('invalid-option', "Parameter 'file' is missing");
  const isName = typeof below === 'string' && driver === undefined;
  const shared = Object.entries(tree).filter(([name]) => Object.hasOwn(BLOCKDEV_BASE, name));
  return {
    ...Object.fromEntries(shared),
    driver: 'raw',
    file: isName ? { driver: 'file', filename: below } : below,
  };
}

function refuseUnknown(driver: 'luks' | 'qcow2', tree: KeyvalTree): void {
  const known: object = { ...driverOptions[driver].members, ...BLOCKDEV_BASE, driver };
  const unknown = Object.keys(tree).find((name) => !Object.hasOwn(known, name));
  if (unknown === undefined) return;
  const text = `Block format '${driver}' does not support the option '${unknown}'`;
  throw new BlockError('invalid-option', text);
}

function requireFormat(format: string | null): void {
  if (format === null || ['luks', 'raw', 'qcow2'].includes(format)) return;
  throw new CliError(`Format '${format}' has no LUKS header that can be handled here`);
}

/** What a driver of options says of the bytes below it. */
function formatBy(driver: unknown): Format {
  if (driver === 'qcow2') return driver;
  return driver === undefined || driver === 'file' || driver === 'host_device' ? null : 'raw';
}

function areaOf(user: Backend, name: string, place: EncryptionHeaderPlace): LuksArea {
  return {
    async read(offset, length) {
      if (offset + length > place.length) {
        throw new BlockError(
          'corrupt-image',
          `LUKS header: ${length} bytes at ${offset} lie past the end of '${name}'`,
        );
      }
      const bytes = new Uint8Array(length);
      await user.read(place.offset + offset, bytes);
      return bytes;
    },
    async write(offset, bytes) {
      assert(offset + bytes.length <= place.length, 'a header is written where it is');
      await user.write(place.offset + offset, bytes);
    },
    async flush() {
      await user.flush();
    },
  };
}
