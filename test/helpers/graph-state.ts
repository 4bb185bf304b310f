// SPDX-License-Identifier: Apache-2.0
// A daemon's graph as comparable text: nodes and edges by names.
//
// A generated node name is replaced by the way to the node from above (`top.file`), so that two
// daemons name the same node alike.

import { canonical, inOrder } from './graph-images.js';
import type { Line } from './transcript.js';

interface GraphNode {
  readonly id: number;
  readonly type: string;
  readonly name: string;
}

interface GraphEdge {
  readonly parent: number;
  readonly child: number;
  readonly name: string;
  readonly perm: readonly string[];
  readonly 'shared-perm': readonly string[];
}

export interface GraphReply {
  readonly nodes: readonly GraphNode[];
  readonly edges: readonly GraphEdge[];
}

export interface GraphState {
  /** One line for each fact, in one order. */
  readonly facts: readonly string[];
  /** Driver of each node by its name as compared. */
  readonly drivers: ReadonlyMap<string, string>;
  /** Parent, edge and child, by names as compared. */
  readonly edges: readonly (readonly [parent: string, edge: string, child: string])[];
}

function namesOf({ nodes, edges }: GraphReply): ReadonlyMap<number, string> {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const names = new Map<number, string>();
  const nameOf = (id: number): string => {
    const known = names.get(id);
    if (known !== undefined) return known;
    const node = byId.get(id);
    let name = node?.name ?? '?';
    if (name.startsWith('#block')) {
      const above = edges.filter((edge) => edge.child === id);
      const ways = above.map((edge) => `${nameOf(edge.parent)}.${edge.name}`).toSorted();
      name = ways[0] ?? '#top';
    } else if (node?.type !== 'block-driver') name = `${node?.type} ${name}`;
    names.set(id, name);
    return name;
  };
  for (const { id } of nodes) nameOf(id);
  return names;
}

/** Both answers, of x-debug-query-block-graph and of query-named-block-nodes (flat). */
export function graphState(graph: GraphReply, nodes: readonly Line[]): GraphState {
  const names = namesOf(graph);
  const nameOf = (id: number): string => names.get(id) ?? '?';
  const given = new Map(graph.nodes.map(({ id, name }) => [name, nameOf(id)]));
  const drivers = new Map<string, string>();
  const described = nodes.flatMap((node) => {
    const name = given.get(String(node['node-name'])) ?? '?';
    drivers.set(name, String(node['drv']));
    return factsOf(`node ${name}`, { ...withBitmapsByName(node), 'node-name': name });
  });
  const edges = graph.edges.map(
    (edge) => [nameOf(edge.parent), edge.name, nameOf(edge.child)] as const,
  );
  const linked = graph.edges.map((edge, at) => {
    const masks = [edge.perm, edge['shared-perm']].map((mask) => mask.toSorted().join('+'));
    return `edge ${(edges[at] ?? []).join(' > ')}: ${masks.join(' / ')}`;
  });
  const facts = [...described, ...linked, ...[...names.values()].map((name) => `has ${name}`)];
  return { facts: facts.toSorted(), drivers, edges };
}

/** Bitmaps without a name are how the reference's copy-before-write remembers what is copied. */
function withBitmapsByName(node: Line): Line {
  const bitmaps = (node['dirty-bitmaps'] ?? []) as readonly Line[];
  const named = bitmaps.filter((bitmap) => bitmap['name'] !== undefined);
  const entries = named.map((bitmap) => [String(bitmap['name']), bitmap] as const);
  return { ...node, 'dirty-bitmaps': Object.fromEntries(entries) };
}

/** A line for each member, those of members too. */
function factsOf(way: string, value: unknown): string[] {
  if (value !== null && typeof value === 'object') {
    return Object.entries(value).flatMap(([key, each]) => factsOf(`${way} ${key}`, each));
  }
  return [`${way} = ${inOrder(canonical(value))}`.replaceAll(/#block\d+/g, '#block')];
}
