// SPDX-License-Identifier: Apache-2.0
// Where the LUKS header of an image lies, opened as plain bytes: the driver would refuse a header
// that is broken, and cannot be asked for the one that is to be replaced.
//
// A name is that of an image or of a detached header. With --image-opts the options are those of
// the driver `luks`, whose `header` or else `file` it is, or of a node that begins with a header.

import { BlockError, Permission } from '../../../base/index.js';
import { readRequest } from '../../../block/index.js';
import type { Backend, Node, OpenPolicy } from '../../../block/index.js';
import type { LuksArea } from '../../../crypto/luks/index.js';
import type { KeyvalTree } from '../../../schema/index.js';
import { CliError } from '../../program.js';
import { attachUser, openImage } from '../session.js';
import type { ImageName, Session } from '../session.js';

const QCOW2_MAGIC = Buffer.from([0x51, 0x46, 0x49, 0xfb]);

export interface HeaderPlace {
  /** As it was given. */
  readonly name: string;
  readonly area: LuksArea;
  /** Bytes of the node that the header lies in. */
  readonly length: number;
  /** `key-secret` of the image's options. */
  readonly secret: string | null;
  /** `key-derivation-limit` of them. */
  readonly limitSeconds: number | undefined;
  close(): Promise<void>;
}

type Unlocking = Pick<HeaderPlace, 'secret' | 'limitSeconds'>;

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
  const { node, ...unlocking } = await openBytes(session, { image, readOnly, policy });
  await refuseOthers(node, image.text);
  const { consistentRead, write, all } = Permission;
  const taken = consistentRead | (readOnly ? 0 : write);
  const shared = readOnly ? all : 0;
  const user = await attachUser(session, { node, name: image.text, taken, shared });
  return {
    name: image.text,
    area: areaOf(user, image.text),
    length: node.length,
    ...unlocking,
    close: () => user.detach(),
  };
}

async function openBytes(
  session: Session,
  request: { readonly image: ImageName; readonly readOnly: boolean; readonly policy: OpenPolicy },
): Promise<{ readonly node: Node } & Unlocking> {
  const { image, readOnly, policy } = request;
  if (!image.imageOptions) {
    requireFormat(image.format);
    const asRaw = { ...image, format: 'raw' };
    const node = await openImage(session, { image: asRaw, readOnly, policy });
    return { node, secret: null, limitSeconds: undefined };
  }
  const { optionTree } = await import('../options/list.js');
  const { openByOptions } = await import('../options/open.js');
  const tree = optionTree(image.text, session.program, 'file');
  try {
    const bytes = bytesOf(tree);
    const node = await openByOptions(session, { tree: bytes, readOnly, policy });
    return { node, ...unlockingOf(tree) };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Could not open '${image.text}': ${error.message}`, 1, error);
  }
}

function unlockingOf(tree: KeyvalTree): Unlocking {
  const { 'key-secret': secret, 'key-derivation-limit': limit } = tree;
  if (limit !== undefined && !(typeof limit === 'string' && /^\d{1,9}$/.test(limit))) {
    throw new BlockError('invalid-option', "Parameter 'key-derivation-limit' expects a number");
  }
  return {
    secret: typeof secret === 'string' ? secret : null,
    limitSeconds: limit === undefined ? undefined : Number(limit),
  };
}

/** Options of the bytes that the header begins. */
function bytesOf(tree: KeyvalTree): KeyvalTree {
  const { driver, header, file } = tree;
  if (driver !== 'luks' && driver !== undefined) return tree;
  const below = header ?? file;
  if (below === undefined) throw new BlockError('invalid-option', "Parameter 'file' is missing");
  const isName = typeof below === 'string' && driver === undefined;
  return { driver: 'raw', file: isName ? { driver: 'file', filename: below } : below };
}

function requireFormat(format: string | null): void {
  if (format === null || format === 'luks' || format === 'raw') return;
  throw new CliError(`Format '${format}' has no LUKS header that can be handled here`);
}

async function refuseOthers(node: Node, name: string): Promise<void> {
  const head = new Uint8Array(Math.min(QCOW2_MAGIC.length, node.length));
  await node.read(readRequest(0, head));
  if (Buffer.compare(head, QCOW2_MAGIC) !== 0) return;
  throw new CliError(`'${name}' is a qcow2 image: only LUKS headers outside of qcow2 are handled`);
}

function areaOf(user: Backend, name: string): LuksArea {
  return {
    async read(offset, length) {
      if (offset + length > user.node.length) {
        throw new BlockError(
          'corrupt-image',
          `LUKS header: ${length} bytes at ${offset} lie past the end of '${name}'`,
        );
      }
      const bytes = new Uint8Array(length);
      await user.read(offset, bytes);
      return bytes;
    },
    async write(offset, bytes) {
      await user.write(offset, bytes);
    },
    async flush() {
      await user.flush();
    },
  };
}
