// SPDX-License-Identifier: Apache-2.0
// `img info`: what the headers of an image say. Opens no file that the image names; with
// --backing-chain the backing files, each on its own and never twice (by device and inode).

import { BlockError, IMAGE_LIMITS } from '../../../base/index.js';
import { internalSnapshotsOf, resolveBackingName } from '../../../block/index.js';
import { storedBytes } from '../../../engine/index.js';
import type { Node } from '../../../block/index.js';
import { jsonPieces } from '../../../wire/index.js';
import type { OptionSpec } from '../../getopt.js';
import { CliError, outPieces } from '../../program.js';
import { infoText, snapshotInfos } from './text.js';
import type { ImageInfo } from './text.js';
import { openImage, withSession } from '../session.js';
import type { ImageName, Session } from '../session.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  OUTPUT,
  outputFormat,
  readVerbOptions,
} from '../verb.js';
import type { Verb } from '../verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  OUTPUT,
  { name: 'backing-chain', long: 'backing-chain' },
  FORCE_SHARE,
];

export const info: Verb = {
  options: OPTIONS,
  async run(args, program) {
    let format: string | null = null;
    let output = 'human';
    const flags = new Set<string>();
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (name === 'format') format = value;
      else if (name === 'output') output = value;
      else flags.add(name);
    });
    const image = oneImage(program, operands, { format, imageOptions: flags.has('image-opts') });
    const shape = outputFormat(output);
    const chain = flags.has('backing-chain');
    return withSession(program, async (session) => {
      const infos = await collect(session, image, { chain, share: flags.has('share') });
      await outPieces(program, shape === 'json' ? asJson(chain ? infos : infos[0]) : asText(infos));
      return 0;
    });
  },
};

function* asJson(value: unknown): Generator<string> {
  yield* jsonPieces(value, { pretty: true });
  yield '\n';
}

function* asText(infos: readonly ImageInfo[]): Generator<string> {
  for (const [index, each] of infos.entries()) {
    if (index > 0) yield '\n';
    yield* infoText(each);
  }
}

async function collect(
  session: Session,
  first: ImageName,
  options: { readonly chain: boolean; readonly share: boolean },
): Promise<ImageInfo[]> {
  const infos: ImageInfo[] = [];
  const seen = new Set<string>();
  let image: ImageName | null = first;
  while (image !== null) {
    await refuseLoop(session, image, seen);
    const found: ImageInfo = await inspect(session, image, options.share);
    infos.push(found);
    if (!options.chain) break;
    const next: string | undefined = found['full-backing-filename'];
    const format = found['backing-filename-format'] ?? null;
    image = next === undefined ? null : { text: next, format, imageOptions: false };
    if (image !== null && infos.length > IMAGE_LIMITS.backingChainDepth) {
      const limit = `Backing chain is longer than ${IMAGE_LIMITS.backingChainDepth} files`;
      throw new CliError(`Could not open '${image.text}': ${limit}`);
    }
  }
  return infos;
}

async function refuseLoop(session: Session, image: ImageName, seen: Set<string>): Promise<void> {
  const stat = image.imageOptions ? null : await session.host.stat(image.text).catch(() => null);
  const key =
    stat === null ? image.text : `${stat.identity.device}:${stat.identity.inode}`;
  if (seen.has(key)) {
    throw new CliError(`Backing file '${image.text}' creates an infinite loop.`);
  }
  seen.add(key);
}

function isStored(node: Node): boolean {
  for (let at: Node | null = node; at !== null; at = at.primary) {
    if (at.driverNode.hostFile !== undefined) return true;
  }
  return false;
}

async function inspect(session: Session, image: ImageName, share: boolean): Promise<ImageInfo> {
  const policy = { inspectOnly: true, noBacking: true, noData: true, forceShare: share };
  const node = await openImage(session, { image, readOnly: true, policy });
  const facts = node.info;
  const snapshots = facts.snapshots ?? internalSnapshotsOf(node)?.list() ?? [];
  const link = node.backingLink();
  const stored = await session.host
    .stat(hostPath(node.filename, image))
    .catch(() => null);
  const several = node.driver.childLists !== undefined;
  const allocated =
    several || node.filename === 'null-co://'
      ? await storedBytes(session.host, node)
      : (stored?.allocatedBytes ?? null);
  // What is stored nowhere has no such flag.
  const dirty = facts.dirty ?? (isStored(node) ? false : undefined);
  const result: ImageInfo = {
    ...(link !== null && link.format !== null && { 'backing-filename-format': link.format }),
    ...(snapshots.length > 0 && { snapshots: snapshotInfos(snapshots) }),
    'virtual-size': node.length,
    filename: node.filename === '' ? image.text : node.filename,
    ...(facts.clusterSize !== undefined && { 'cluster-size': facts.clusterSize }),
    format: node.driver.name,
    ...(allocated !== null && { 'actual-size': allocated }),
    ...(facts.specific !== undefined && { 'format-specific': facts.specific }),
    ...(link !== null && fullName(node.filename, link.file)),
    ...(facts.encrypted === true && { encrypted: true }),
    ...(link !== null && { 'backing-filename': link.file }),
    ...(dirty !== undefined && { 'dirty-flag': dirty }),
  };
  await session.graph.close(node);
  return result;
}

/** The file whose blocks are counted. */
function hostPath(filename: string, image: ImageName): string {
  if (!filename.startsWith('json:')) return filename === '' ? image.text : filename;
  const inner = /"filename": ?"((?:[^"\\]|\\.)*)"/.exec(filename)?.[1];
  return inner === undefined ? '' : (JSON.parse(`"${inner}"`) as string);
}

function fullName(overlay: string, name: string): { 'full-backing-filename'?: string } {
  try {
    return { 'full-backing-filename': resolveBackingName(overlay, name) };
  } catch (error) {
    if (error instanceof BlockError) return {};
    throw error;
  }
}
