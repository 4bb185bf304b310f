// SPDX-License-Identifier: Apache-2.0
// Opening an image by options in place of a name, or beside one. Without a driver its format is
// found, as that of a name is.

import { BlockError } from '../../../base/index.js';
import { parseFilename } from '../../../block/index.js';
import type { Node, OpenPolicy } from '../../../block/index.js';
import { driverOptions } from '../../../drivers/options-catalog.js';
import type { KeyvalTree } from '../../../schema/index.js';
import { CliError } from '../../program.js';
import type { Session } from '../session.js';
import { OptionFitter } from './fit.js';
import type { Options } from './fit.js';
import { isTree, mistake } from './values.js';

export interface OptionRequest {
  readonly tree: KeyvalTree;
  /** What holds unless the options say. */
  readonly readOnly: boolean;
  readonly policy: OpenPolicy;
}

export async function openByOptions(session: Session, request: OptionRequest): Promise<Node> {
  const { tree, policy, readOnly } = request;
  const shared = tree['force-share'];
  if (policy.forceShare === true && shared !== undefined && shared !== 'on') {
    throw new CliError('--force-share/-U conflicts with image options');
  }
  const fitter = new OptionFitter(session, policy.noBacking === true);
  const options = await fitter.fit(tree, 'image', await foundDriver(session, tree));
  const node = await open(session, { 'read-only': readOnly, ...options }, policy);
  if (fitter.late === null) return node;
  await session.graph.close(node);
  throw fitter.late;
}

async function open(session: Session, options: Options, policy: OpenPolicy): Promise<Node> {
  const { driver } = options;
  if (typeof driver === 'string') return await session.graph.open({ ...options, driver }, policy);
  const { 'read-only': given, ...others } = options;
  const readOnly = given === true || given === 'on';
  return await openUnknown(session, others, { readOnly, policy });
}

async function openUnknown(
  session: Session,
  options: Options,
  { readOnly, policy }: Pick<OptionRequest, 'readOnly' | 'policy'>,
): Promise<Node> {
  const { file } = options;
  if (typeof file === 'string') session.graph.require(file);
  const path = `json:${JSON.stringify(options)}`;
  try {
    return await session.graph.openImage(path, null, readOnly, policy);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw withoutPrefix(error, path);
  }
}

/** Says what is wrong without repeating the name. */
export function withoutPrefix(error: BlockError, path: string): BlockError {
  const prefix = `Could not open '${path}': `;
  const { message, kind, context } = error;
  if (!message.startsWith(prefix)) return error;
  return new BlockError(kind, message.slice(prefix.length), context);
}

/** The format of an image that names none but has options beside its file. */
async function foundDriver(session: Session, tree: KeyvalTree): Promise<string | undefined> {
  const { file } = tree;
  if (tree['driver'] !== undefined && typeof tree['driver'] === 'string') return undefined;
  if (!isTree(file) || Object.keys(tree).length === 1) return undefined;
  const below = await new OptionFitter(session).fit(file, 'protocol');
  const policy = { inspectOnly: true, noData: true, forceShare: true, noBacking: true };
  const node = await openUnknown(session, { file: below }, { readOnly: true, policy });
  await session.graph.close(node);
  return node.driver.name;
}

/** Options with a name where it belongs. */
export async function withName(
  session: Session,
  name: string,
  options: KeyvalTree,
): Promise<KeyvalTree> {
  const { driver, file } = options;
  if (driver === 'blkdebug') return withDebuggedName(session, name, options);
  if (typeof driver === 'string' && Object.hasOwn(driverOptions, driver)) {
    const { kind } = await session.registry.load(driver);
    if (kind === 'protocol') return { filename: name, ...options };
  }
  if (typeof file === 'string') return options;
  const parsed = parseFilename(name);
  const own = isTree(file) ? file : {};
  if (own['filename'] !== undefined) {
    throw mistake("Can't specify 'file' and 'filename' options at the same time");
  }
  if (parsed.kind === 'path') return { ...options, file: withPath(parsed.path, own) };
  const { driver: named, ...rest } = asTexts(parsed.options);
  if (named !== undefined) return { ...options, file: { ...rest, driver: named, ...own } };
  const { file: below } = rest;
  return { ...rest, ...options, file: { ...(isTree(below) ? below : {}), ...own } };
}

/** A path beside a test driver is that of the image below it. */
function withPath(path: string, own: KeyvalTree): KeyvalTree {
  const { driver, image, test } = own;
  if (driver === 'blkdebug' && (image === undefined || isTree(image))) {
    return { ...own, image: { filename: path, ...image } };
  }
  if (driver === 'blkverify' && (test === undefined || isTree(test))) {
    return { ...own, test: { file: { filename: path }, ...test } };
  }
  return { filename: path, ...own };
}

/** The name is that of the image below, or of its file where a format is given for it. */
async function withDebuggedName(
  session: Session,
  name: string,
  options: KeyvalTree,
): Promise<KeyvalTree> {
  const parsed = parseFilename(name.startsWith('blkdebug:') ? name : `blkdebug::${name}`);
  const all = parsed.kind === 'options' ? asTexts(parsed.options) : {};
  const { image: named, ...rules } = isTree(all['file']) ? all['file'] : {};
  const file = isTree(named) ? named : {};
  const own = isTree(options['image']) ? options['image'] : {};
  const format =
    typeof own['driver'] === 'string' && Object.hasOwn(driverOptions, own['driver'])
      ? await session.registry.load(own['driver'])
      : null;
  const below = isTree(own['file']) ? own['file'] : {};
  const image =
    format?.kind === 'format' ? { ...own, file: { ...file, ...below } } : { ...file, ...own };
  return { ...rules, ...options, image };
}

/** As a command line would give them. */
export function asTexts(options: Options): KeyvalTree {
  const entries = Object.entries(options).map(([name, value]) => [name, textOf(value)] as const);
  return Object.fromEntries(entries) as KeyvalTree;
}

function textOf(value: unknown): unknown {
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (Array.isArray(value)) return value.map(textOf);
  return typeof value === 'object' && value !== null ? asTexts(value as Options) : String(value);
}
