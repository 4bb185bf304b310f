// SPDX-License-Identifier: Apache-2.0
// Reference text of a command or event, made from its declaration.

import type { CommandDeclaration, EventDeclaration } from './declare.js';
import { memberOf, resolveType } from './types.js';
import type { Members, StructType, Type, UnionType } from './types.js';

/** How a type is called in text: its name, `[element]` for lists. */
export function typeName(type: Type): string {
  switch (type.kind) {
    case 'list':
      return `[${typeName(type.element)}]`;
    case 'str':
      return 'string';
    case 'bool':
      return 'boolean';
    case 'number':
    case 'any':
    case 'null':
      return type.kind;
    default:
      return type.name;
  }
}

function memberLines(members: Members): string[] {
  return Object.entries(members).map(([name, entry]) => {
    const member = memberOf(entry);
    const target = resolveType(member.type);
    const values = target.kind === 'enum' ? ` (${target.values.join(', ')})` : '';
    const optional = member.optional ? ', optional' : '';
    const doc = member.facts.doc === undefined ? '' : `: ${member.facts.doc}`;
    const features = (member.facts.features ?? []).map((feature) => `, ${feature}`).join('');
    return `- \`${name}\`: ${typeName(member.type)}${values}${optional}${features}${doc}`;
  });
}

function argumentLines(type: StructType | UnionType): string[] {
  if (type.kind === 'struct') return memberLines(type.members);
  const lines = memberLines(type.base);
  for (const [value, branch] of Object.entries(type.branches())) {
    lines.push(`- when \`${type.discriminator}\` is \`${value}\`:`);
    if (branch !== null) lines.push(...argumentLines(branch).map((line) => `  ${line}`));
  }
  return lines;
}

/** Markdown of one declaration. */
export function document(declaration: CommandDeclaration | EventDeclaration): string {
  const isCommand = declaration.declares === 'command';
  const type = isCommand ? declaration.args : declaration.data;
  const returns = isCommand && declaration.returns !== null ? typeName(declaration.returns) : null;
  return [
    `### ${declaration.name}`,
    '',
    `${declaration.doc} Since ${declaration.since}.`,
    '',
    ...argumentLines(type),
    ...(returns === null ? [] : ['', `Returns ${returns}.`]),
    '',
  ].join('\n');
}
