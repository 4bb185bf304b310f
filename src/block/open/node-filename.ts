// SPDX-License-Identifier: Apache-2.0
// What opens a node again: a path where that is enough, else `json:` with the options.
//
// A path is enough unless an option changes what is read or the backing file is not the one that
// the image header names. Only options that matter for the content are part of the text.

import { BlockError } from '../../base/index.js';
import { writeJson } from '../../wire/index.js';
import type { BlockNode } from '../block-node.js';
import { ChildRole } from '../driver.js';
import { withAncestors } from '../drain.js';
import type { Node } from '../node.js';
import { topologicalOrder } from '../permissions.js';
import { flatOptions } from '../reopen/flat-options.js';
import { inMemberOrder } from './member-order.js';
import { parseFilename, resolveBackingName } from './filename.js';

export function filenameOf(node: BlockNode): string {
  const shown = seenNode(node);
  return plainName(shown) ?? `json:${writeJson(contentOptions(shown))}`;
}

/** A filter that nobody named is not seen: the node below it stands for it. */
function seenNode(node: BlockNode): BlockNode {
  let seen = node;
  while (seen.implicit && seen.filtered !== null) seen = seen.filtered;
  return seen;
}

/** Anew for the nodes and for all above, whose names may be made of theirs. */
export function renewFilenames(nodes: readonly BlockNode[]): void {
  const stale = withAncestors(nodes);
  for (const node of topologicalOrder(stale).reverse()) {
    if (stale.has(node)) node.filename = filenameOf(node);
  }
}

function plainName(node: BlockNode): string | null {
  const { driver, options } = node;
  if (driver.namedAfterFile === true) return (node.filtered ?? node.primary)?.filename ?? null;
  const { strongOptions = [], nameOptions = [] } = driver;
  const unsaid = strongOptions.filter((option) => !nameOptions.includes(option));
  if (unsaid.some((option) => optionAt(options, option) !== undefined)) return null;
  if (hasOtherBacking(node)) return null;
  const own = options['filename'];
  if (typeof own === 'string') return own;
  const below = node.primary ?? node.filtered;
  if (below === null) return driver.plainFilename ?? null;
  if (driver.filename !== undefined) {
    return driver.filename((name) => childName(node, name), options);
  }
  // A file name is opened by finding its format, which never is a filter.
  const opens = below.driver.kind === 'protocol' || below.driver.filename !== undefined;
  return driver.kind !== 'filter' && opens ? plainName(below) : null;
}

function childName(node: BlockNode, name: string): string | null {
  const child = node.edges.get(name)?.node;
  return child === undefined ? null : plainName(seenNode(child));
}

/** Whether the backing file is the one that the header names. */
export function hasNamedBacking(node: Node): boolean {
  return !hasOtherBacking(node as BlockNode);
}

/** The backing file was given and is another than a plain open would find. */
function hasOtherBacking(node: BlockNode): boolean {
  const name = cowName(node);
  if (name === null || node.options[name] === undefined) return false;
  const link = node.pipeline.driverNode?.backingLink?.() ?? null;
  const { backing } = node;
  if (link === null || backing === null) return (link === null) !== (backing === null);
  const found = node.given[name] === undefined ? headerName(node, link.file) : link.file;
  return backing.filename !== found && !opensSame(link.file, backing);
}

/** The name gives options, and the node is made of them. */
function opensSame(name: string, node: BlockNode): boolean {
  if (!name.startsWith('json:')) return false;
  try {
    const parsed = parseFilename(name);
    if (parsed.kind !== 'options') return false;
    const given = flatOptions(parsed.options);
    const found = flatOptions(contentOptions(seenNode(node)));
    return [...found].every(([option, value]) => {
      const text = given.get(option);
      return String(text) === String(value) || (text === undefined && /(^|\.)driver$/.test(option));
    });
  } catch (error) {
    if (error instanceof BlockError) return false;
    throw error;
  }
}

/** The name in the header of an image, made relative to where the image is; null if it cannot. */
export function headerName(node: Node, file: string): string | null {
  let storing = node;
  for (let at: Node | null = node; at !== null; at = at.primary ?? at.filtered) storing = at;
  const own = storing.filename;
  const relative = parsesAsPath(file) && !file.startsWith('/');
  return relative && own.startsWith('json:') ? null : resolveBackingName(own, file);
}

function parsesAsPath(file: string): boolean {
  try {
    return parseFilename(file).kind === 'path';
  } catch {
    return false;
  }
}

function cowName(node: BlockNode): string | null {
  for (const [name, { role }] of Object.entries(node.driver.children)) {
    if ((role & ChildRole.cow) !== 0) return name;
  }
  return null;
}

function contentOptions(node: BlockNode): Record<string, unknown> {
  const { driver, options } = node;
  const own: Record<string, unknown> = { driver: driver.name };
  for (const name of ['filename', ...(driver.strongOptions ?? [])]) {
    const value = optionAt(options, name);
    if (Array.isArray(value)) flattenList(own, name, value);
    else if (value !== undefined) own[name] = value;
  }
  for (const [name, edge] of node.edges) {
    if (name === cowName(node) && !hasOtherBacking(node)) continue;
    const dot = Object.hasOwn(driver.children, name) ? -1 : name.lastIndexOf('.');
    if (dot < 0) own[name] = contentOptions(seenNode(edge.node));
    else ((own[name.slice(0, dot)] ??= []) as unknown[]).push(contentOptions(seenNode(edge.node)));
  }
  const cow = cowName(node);
  if (cow !== null && node.backing === null && hasOtherBacking(node)) own[cow] = null;
  return inMemberOrder(own);
}

/** `name` may be dotted: that of a member. */
function optionAt(options: Readonly<Record<string, unknown>>, name: string): unknown {
  let value: unknown = options;
  for (const step of name.split('.')) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Readonly<Record<string, unknown>>)[step];
  }
  return value;
}

/** Lists are spelled `name.0.member`, as names of images have them. */
function flattenList(target: Record<string, unknown>, name: string, list: unknown[]): void {
  for (const [index, item] of list.entries()) {
    if (typeof item !== 'object' || item === null) target[`${name}.${index}`] = item;
    else {
      for (const [member, value] of Object.entries(item)) {
        target[`${name}.${index}.${member}`] = value;
      }
    }
  }
}
