// SPDX-License-Identifier: Apache-2.0
// What a reopen comes to: for each node its new options, flags and children, and what is refused.
//
// Options not given go back to their defaults. A child that was opened for its parent is reopened
// with it: with the options given for it, or with its own when it is named. Options that a driver
// cannot change must stay as they are and may not be left out. Nothing is changed here.

import { BlockError } from '../../base/index.js';
import type { BlockNode } from '../block-node.js';
import { ChildRole } from '../driver.js';
import type { NodeOptions } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import {
  flagsOf,
  inheritedByChild,
  inheritedByOverlay,
  nodeFlags,
  requireUnmap,
  rootContext,
  type NodeFlags,
  type OpenInheritance,
} from '../open/make-node.js';
import { sortedByName } from '../open/member-order.js';
import { flatOptions, optionOf } from './flat-options.js';

type Options = Readonly<Record<string, unknown>>;

export interface ReopenPlan {
  readonly node: BlockNode;
  /** As given for this node, children by name where they stay. */
  readonly given: Options;
  readonly flags: NodeFlags;
  /** In force afterwards. */
  readonly options: Options;
  /** The request did not say what its backing file is to be. */
  readonly backingMissing: boolean;
  /** Children that become others, null = none; filled in by checkPlans(). */
  readonly children: Map<string, BlockNode | null>;
}

export type ReopenPlans = Map<BlockNode, ReopenPlan>;

/** Options of every node that any reopen sets or resets. */
const COMMON_OPTIONS = new Set([
  'discard',
  'cache',
  'read-only',
  'auto-read-only',
  'detect-zeroes',
]);

/** Children that may become others; the rest are reopened at most. */
const REPLACEABLE = new Set(['backing', 'file']);

/** In the order in which nodes are reopened. Throws for nodes that are not there. */
export function planReopen(graph: BlockGraph, requests: readonly NodeOptions[]): ReopenPlans {
  const plans: ReopenPlans = new Map();
  for (const given of requests) {
    const name = given['node-name'];
    if (name === undefined) {
      throw new BlockError('invalid-option', 'node-name not specified');
    }
    const node = graph.find(name as string);
    if (node === null) {
      const text = `Failed to find node with node-name='${name as string}'`;
      throw new BlockError('not-found', text);
    }
    addPlan(plans, { node, given, inherited: rootContext({}), keeps: false });
  }
  return plans;
}

export interface OptionsChange {
  readonly node: BlockNode;
  readonly options: Options;
  /** As it is unless given. */
  readonly writeThrough?: boolean;
}

/** A reopen that changes what is named and nothing else. */
export function planChange({ node, options, writeThrough }: OptionsChange): ReopenPlans {
  const plans: ReopenPlans = new Map();
  const { policy, cache, forceShare, autoReadOnly } = flagsOf(node);
  const inherited: OpenInheritance = {
    ...rootContext({}),
    policy: { direct: cache.direct, noFlush: cache['no-flush'], forceShare },
    autoReadOnly,
    unmap: policy.unmap,
    writeThrough: writeThrough ?? policy.writeThrough,
  };
  addPlan(plans, { node, given: options, inherited, keeps: true });
  return plans;
}

interface PlanRequest {
  readonly node: BlockNode;
  readonly given: Options;
  readonly inherited: OpenInheritance;
  /** Its own options stay in force unless others are given. */
  readonly keeps: boolean;
  /** Whether it is read-only was given for a node above; false also for the topmost. */
  readonly saysReadOnly?: boolean;
}

function addPlan(plans: ReopenPlans, request: PlanRequest): void {
  const { node, inherited, keeps } = request;
  const kept = plans.get(node)?.given ?? (keeps ? node.given : {});
  const joined = keeps ? node.driver.joinOptions?.(kept, request.given) : undefined;
  const given: Record<string, unknown> = { ...(joined ?? { ...kept, ...request.given }) };
  const flags = nodeFlags(given, inherited);
  const says = keeps || request.saysReadOnly === true || given['read-only'] !== undefined;
  const below: PlanRequest[] = [];
  const names: Record<string, unknown> = {};
  // The newest child first: of a node that is two of them, what is said of the older counts.
  for (const [name, edge] of [...node.edges].reverse()) {
    const child = edge.node;
    if (Object.hasOwn(node.driver.children, name)) names[name] = child.name;
    const inherits = child.inheritsFrom === node;
    if (keeps && !Object.hasOwn(request.given, name) && Object.hasOwn(given, name)) {
      // It may have got another child since the options were given.
      if (!inherits || typeof given[name] === 'string') given[name] = child.name;
    }
    if (!inherits) continue;
    const value = given[name];
    if (value === null || (typeof value === 'string' && value !== child.name)) continue;
    const own = typeof value === 'object' ? (value as Options) : {};
    if (typeof value === 'object') given[name] = child.name;
    const toChild = (edge.role & ChildRole.cow) === 0 ? inheritedByChild : inheritedByOverlay;
    const passed = toChild(flags, inherited);
    const stays = typeof value === 'string' && !says;
    below.push({
      node: child,
      given: own,
      // What nobody says anything of stays in a child that is named.
      inherited: stays ? { ...passed, readOnly: child.readOnly } : passed,
      keeps: typeof value === 'string' || keeps,
      saysReadOnly: says,
    });
  }
  const base = {
    driver: node.driver.name,
    'node-name': node.name,
    'force-share': node.forceShare,
    'auto-read-only': flags.autoReadOnly,
    cache: flags.cache,
  };
  plans.set(node, {
    node,
    given,
    flags,
    options: { ...names, ...given, ...base },
    backingMissing: !keeps && given['backing'] === undefined,
    children: new Map(),
  });
  for (const child of below) addPlan(plans, child);
}

/** Throws for what cannot be, node by node in order; fills in the children that change. */
export function checkPlans(graph: BlockGraph, plans: ReopenPlans): void {
  for (const plan of plans.values()) {
    requireUnmap(plan.flags);
    requireReopenable(plan);
    requireBacking(plan);
    const declared = Object.keys(plan.node.driver.children).toSorted();
    for (const name of declared) planChild(graph, plans, { plan, name });
    requireUnchanged(plan);
  }
}

function requireReopenable({ node, given }: ReopenPlan): void {
  const { name, children, reopenOptions } = node.driver;
  if (reopenOptions === undefined) {
    throw new BlockError(
      'unsupported',
      `Block format '${name}' used by node '${node.name}' does not support reopening files`,
      { node: node.name },
    );
  }
  const now = flatOptions(given);
  for (const [key] of sortedByName(flatOptions(node.given))) {
    const option = optionOf(key);
    const free =
      COMMON_OPTIONS.has(option) || reopenOptions.includes(option) || option in children;
    if (free || now.has(key) || key === 'driver' || key === 'node-name') continue;
    throw new BlockError(
      'invalid-option',
      `Option '${key}' cannot be reset to its default value`,
      { node: node.name },
    );
  }
}

function requireBacking({ node, backingMissing }: ReopenPlan): void {
  if (!backingMissing) return;
  const hasOne = node.edgeWithRole(ChildRole.cow) !== null;
  if (!hasOne && node.backingLink() === null) return;
  throw new BlockError('invalid-option', `backing is missing for '${node.name}'`, {
    node: node.name,
  });
}

function planChild(
  graph: BlockGraph,
  plans: ReopenPlans,
  request: { readonly plan: ReopenPlan; readonly name: string },
): void {
  const { plan, name } = request;
  const { node } = plan;
  const value = plan.given[name];
  if (value !== null && typeof value !== 'string') return;
  const present = node.edges.get(name)?.node ?? null;
  if (!REPLACEABLE.has(name)) {
    if (value !== (present?.name ?? null)) throw cannotChange(name, node);
    return;
  }
  const wanted = value === null ? null : graph.find(value);
  if (wanted === null && value !== null) {
    const text = `Cannot find device='' nor node-name='${value}'`;
    throw new BlockError('not-found', text, { node: node.name });
  }
  if (wanted !== null && reaches(plans, wanted, node)) {
    throw new BlockError(
      'invalid-option',
      `Making '${wanted.name}' a ${name} child of '${node.name}' would create a cycle`,
      { node: node.name },
    );
  }
  const edge = node.edges.get(name) ?? null;
  const old = edge?.node ?? null;
  if (old === wanted || (old !== null && belowImplicit(old) === wanted)) return;
  if (old?.implicit === true) {
    const text = `Cannot replace implicit ${name} child of ${node.name}`;
    throw new BlockError('busy', text, { node: node.name });
  }
  if (edge !== null && edge.frozenBy !== null) {
    throw new BlockError(
      'busy',
      `Cannot change frozen '${name}' link from '${node.name}' to '${edge.node.name}'`,
      { node: node.name },
    );
  }
  plan.children.set(name, wanted);
}

/** Whether `target` is `from` or below it, with what is planned so far in force. */
function reaches(plans: ReopenPlans, from: BlockNode, target: BlockNode): boolean {
  const found = new Set<BlockNode>([from]);
  for (const node of found) {
    if (node === target) return true;
    const planned = plans.get(node)?.children;
    for (const edge of node.edges.values()) {
      if (planned?.has(edge.name) !== true) found.add(edge.node);
    }
    for (const child of planned?.values() ?? []) if (child !== null) found.add(child);
  }
  return false;
}

function belowImplicit(node: BlockNode): BlockNode {
  let current = node;
  while (current.implicit && current.filtered !== null) current = current.filtered;
  return current;
}

function requireUnchanged({ node, given }: ReopenPlan): void {
  const { children, reopenOptions = [], changeableOptions = [], name: driver } = node.driver;
  const current = flatOptions({ ...node.given, driver, 'node-name': node.name });
  for (const [key, value] of sortedByName(flatOptions(given))) {
    const option = optionOf(key);
    if (COMMON_OPTIONS.has(option) || reopenOptions.includes(option)) continue;
    if (changeableOptions.includes(option)) continue;
    if (key in children && (value === null || typeof value === 'string')) continue;
    if (key !== option && option in children) throw cannotChange(key, node);
    if (value !== current.get(key)) throw cannotChange(key, node);
  }
}

function cannotChange(option: string, node: BlockNode): BlockError {
  return new BlockError('invalid-option', `Cannot change the option '${option}'`, {
    node: node.name,
  });
}
