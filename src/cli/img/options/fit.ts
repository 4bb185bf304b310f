// SPDX-License-Identifier: Apache-2.0
// Options as texts given the types of their driver's declaration, refused as the reference refuses
// those of its command lines, which are not those of a command: `Block format 'qcow2' does not
// support the option 'x'` and not `Parameter 'x' is unexpected`.
//
// A name that no driver knows is told only when everything else could be opened: it is kept as
// `late`. Options without a driver are those of an image whose format is found: they stay texts.

import { BlockError } from '../../../base/index.js';
import { ChildRole, declarationOf, lacksName, protocolOf } from '../../../block/index.js';
import type { Driver } from '../../../block/index.js';
import { blockdevOptions } from '../../../api/index.js';
import { BLOCKDEV_BASE } from '../../../block/options.js';
import { driverOptions } from '../../../drivers/options-catalog.js';
import { memberOf, resolveType, validate } from '../../../schema/index.js';
import type { KeyvalTree, KeyvalValue, Members } from '../../../schema/index.js';
import { report } from '../../program.js';
import type { Program } from '../../program.js';
import type { Session } from '../session.js';
import { CHECKED_AS_COMMANDS, fitValue, isTree, mistake } from './values.js';

/** Own options of a driver as its declaration's check takes them; others are left out. */
export function fitOwn(driver: string, options: KeyvalTree): KeyvalTree {
  const known = (driverOptions as Readonly<Record<string, { members: Members }>>)[driver];
  const fitted: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    const member = known?.members[name];
    if (member === undefined) continue;
    const note = (): void => undefined;
    fitted[name] = fitValue(resolveType(memberOf(member).type), value, { name, driver, note });
  }
  return fitted as KeyvalTree;
}

export type Options = Readonly<Record<string, unknown>>;

/** Where options stand: a file of bytes, or an image whose format may be looked for. */
type Place = 'protocol' | 'image' | 'backing';

/** Those that open what has a name of its own in the reference's sense. */
const PROTOCOLS = new Set(['file', 'host_device', 'null-co', 'null-aio', 'blkdebug', 'blkverify']);

/** What is said of a member that must be there and is not. */
const MISSING: Readonly<Record<string, string>> = {
  filename: "The 'file' block driver requires a file name",
  'throttle-group': 'Please specify a throttle group',
  children: 'Number of provided children must be 1 or more',
};

/** A single rule of blkdebug needs no number. */
function withListedRules(tree: KeyvalTree): KeyvalTree {
  if (tree['driver'] !== 'blkdebug') return tree;
  const rules = ['inject-error', 'set-state'].flatMap((name) => {
    const rule = tree[name];
    return isTree(rule) ? [[name, [rule]] as const] : [];
  });
  return { ...tree, ...Object.fromEntries(rules) };
}

export class OptionFitter {
  readonly #session: Session;
  readonly #noBacking: boolean;
  /** An option that nobody knows. */
  late: BlockError | null = null;

  /** Without backing files the option of one has no meaning. */
  constructor(session: Session, noBacking = false) {
    this.#session = session;
    this.#noBacking = noBacking;
  }

  /** `found`: the driver of an image that names none, where it is known. */
  async fit(options: KeyvalTree, place: Place = 'image', found?: string): Promise<Options> {
    const tree = withListedRules(options);
    const given = await this.#driverOf(tree, place);
    const name = given ?? found;
    if (name === undefined) return this.#fitUnknown(tree, place);
    const known = (driverOptions as Readonly<Record<string, { members: Members }>>)[name];
    if (known === undefined) throw mistake(`Unknown driver '${name}'`);
    const driver = await this.#session.registry.load(name);
    const below = PROTOCOLS.has(name) ? 'protocol' : 'image';
    const result: Record<string, unknown> = {};
    const own: Record<string, unknown> = {};
    const members: Members = { ...known.members, ...BLOCKDEV_BASE };
    // The header may name the file of a backing file.
    const isNamed = place === 'backing' && tree['file'] === undefined;
    requirePresent(driver, members, isNamed ? { ...tree, file: {} } : tree);
    for (const [key, value] of Object.entries(tree)) {
      if (key === 'driver' && typeof value === 'string') continue;
      const member = members[key];
      const isCow = ((driver.children[key]?.role ?? 0) & ChildRole.cow) !== 0;
      if (member === undefined || (isCow && this.#noBacking)) this.#noteUnknown(name, key, value);
      else if (place === 'backing' && key === 'file' && isTree(value) && lacksName(value)) {
        result[key] = value;
      } else if (isChild(driver, key)) {
        if (key === 'backing' && value === '') warnOfEmptyBacking(this.#session.program);
        result[key] = await this.#fitChild(driver, { key, value, below });
      } else if (driver.childLists?.[key] !== undefined && Array.isArray(value)) {
        result[key] = await this.#fitChildren(driver, { key, value, below });
      } else {
        const type = resolveType(memberOf(member).type);
        const note = (path: string): void => this.#noteUnknown(name, path, '');
        const fitted = fitValue(type, value, { name: key, driver: name, note });
        // Of encryption the image says the format, which is not to be missed here.
        const target = type.kind === 'union' ? result : own;
        if (fitted !== undefined) target[key] = fitted;
      }
    }
    if (given === undefined) return { ...result, ...own };
    return { ...typed(driver, own), ...result, driver: name };
  }

  async #driverOf(tree: KeyvalTree, place: Place): Promise<string | undefined> {
    const { driver, filename, file } = tree;
    if (typeof driver === 'string') return driver;
    if (place === 'protocol' && typeof filename === 'string') {
      return protocolOf(this.#session.host, filename);
    }
    if (place !== 'protocol' && (typeof file === 'string' || isTree(file))) return undefined;
    // The header names it, and perhaps its format.
    if (place === 'backing') return undefined;
    throw mistake('Must specify either driver or file');
  }

  async #fitUnknown(tree: KeyvalTree, place: Place): Promise<Options> {
    const { file } = tree;
    if (!isTree(file)) return tree;
    if (place === 'backing' && lacksName(file)) return tree;
    return { ...tree, file: await this.fit(file, 'protocol') };
  }

  async #fitChild(
    driver: Driver,
    child: { readonly key: string; readonly value: KeyvalValue; readonly below: Place },
  ): Promise<unknown> {
    const { key, value, below } = child;
    if (!isTree(value)) return value;
    const declared = declarationOf(driver, key) ?? driver.childLists?.[key];
    const role = declared?.role ?? 0;
    try {
      return await this.fit(value, placeOf(driver, role, below));
    } catch (error) {
      if (!(error instanceof BlockError) || (role & ChildRole.cow) === 0) throw error;
      const { kind, message, context } = error;
      throw new BlockError(kind, `Could not open backing file: ${message}`, context);
    }
  }

  async #fitChildren(
    driver: Driver,
    list: { readonly key: string; readonly value: readonly KeyvalValue[]; readonly below: Place },
  ): Promise<unknown[]> {
    const fitted: unknown[] = [];
    for (const value of list.value) {
      fitted.push(await this.#fitChild(driver, { ...list, value }));
    }
    return fitted;
  }

  #noteUnknown(driver: string, key: string, value: KeyvalValue): void {
    const path = [key];
    for (let at = value; typeof at === 'object'; ) {
      const [first] = Object.entries(at);
      if (first === undefined) break;
      path.push(first[0]);
      at = first[1] as KeyvalValue;
    }
    const what = PROTOCOLS.has(driver)
      ? `Block protocol '${driver}' doesn't support`
      : `Block format '${driver}' does not support`;
    this.late ??= mistake(`${what} the option '${path.join('.')}'`);
  }
}

function warnOfEmptyBacking(program: Program): void {
  report(program, 'warning: Use of "backing": "" is deprecated; use "backing": null instead');
}

function isChild(driver: Driver, key: string): boolean {
  return Object.hasOwn(driver.children, key);
}

/** Formats have files of bytes below them, filters what they are themselves, others images. */
function placeOf({ kind }: Driver, role: number, below: Place): Place {
  if ((role & ChildRole.cow) !== 0) return 'backing';
  if (kind === 'format' || (role & ChildRole.metadata) !== 0) return 'protocol';
  return (role & ChildRole.filtered) !== 0 ? below : 'image';
}

function requirePresent(driver: Driver, members: Members, tree: KeyvalTree): void {
  if (members['filename'] !== undefined && tree['filename'] === '') {
    throw mistake(MISSING['filename'] ?? '');
  }
  for (const name of Object.keys(driver.children)) {
    if (driver.children[name]?.required !== true || tree[name] !== undefined) continue;
    if (CHECKED_AS_COMMANDS.has(driver.name) && name !== 'file') {
      throw mistake(`Parameter '${name}' is missing`);
    }
    throw mistake(`A block device must be specified for "${name}"`);
  }
  for (const [name, entry] of Object.entries(members)) {
    const text = MISSING[name];
    if (memberOf(entry).optional || text === undefined || tree[name] !== undefined) continue;
    throw mistake(text);
  }
}

/** The node's own values with their types; children are put in afterwards. */
function typed(driver: Driver, own: Options): Options {
  const stands: Record<string, unknown> = {};
  for (const [name, { required }] of Object.entries(driver.children)) {
    if (required) stands[name] = 'child';
  }
  for (const name of Object.keys(driver.childLists ?? {})) stands[name] = ['child'];
  const given = { ...own, ...stands, driver: driver.name };
  const checked = validate(blockdevOptions, given, '', 'keyval') as Record<string, unknown>;
  for (const name of Object.keys(stands)) delete checked[name];
  return checked;
}
