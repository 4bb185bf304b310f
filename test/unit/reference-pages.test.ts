// SPDX-License-Identifier: Apache-2.0
// The reference pages: everything has a text, every link leads somewhere, nothing is invented.

import { beforeAll, describe, expect, it } from 'vitest';

import { commands, events, memberDocs, typeDocs } from '../../src/api/index.js';
import { manual, referenceOf, referencePages } from '../../src/cli/docs.js';
import { USAGE } from '../../src/cli/usage.js';
import { VERB_NAMES } from '../../src/cli/img/verbs.js';
import { anchorOf, collectTypes, introspect } from '../../src/schema/index.js';
import type { NamedType } from '../../src/schema/index.js';

const declarations = [...commands.values(), ...events.values()];
const types = collectTypes(declarations);

/** Keys with more than one value: a type's name stands for one type. */
function shapeOf(type: NamedType): string {
  switch (type.kind) {
    case 'enum':
      return type.values.join(' ');
    case 'struct':
      return Object.keys(type.members).join(' ');
    case 'union':
      return Object.keys(type.branches()).join(' ');
    default:
      return Object.keys(type.branches).join(' ');
  }
}

describe('texts of the declarations', () => {
  it('are there for every command and event, with the version that brought it', () => {
    const bare = declarations.filter(({ doc, since }) => !doc.endsWith('.') || since === '');
    expect(bare.map(({ name }) => name)).toEqual([]);
  });

  it('are there for every type', () => {
    const reference = referenceOf(types);
    const bare = [...types.values()].filter((type) => reference.typeText(type) === '');
    expect(bare.map(({ name }) => name)).toEqual([]);
  });

  it('speak of nothing that does not exist', () => {
    expect(Object.keys(typeDocs).filter((name) => !types.has(name))).toEqual([]);
    const reference = referenceOf(types);
    for (const type of types.values()) reference.type(type);
    for (const command of commands.values()) reference.command(command);
    for (const event of events.values()) reference.event(event);
    expect(Object.keys(memberDocs).filter((name) => !reference.used.has(name))).toEqual([]);
  });

  it('name one shape by one name', () => {
    const shapes = new Map<string, Set<string>>();
    for (const declaration of declarations) {
      for (const [name, type] of collectTypes([declaration])) {
        shapes.set(name, (shapes.get(name) ?? new Set()).add(shapeOf(type)));
      }
    }
    expect([...shapes].filter(([, all]) => all.size > 1).map(([name]) => name)).toEqual([]);
  });
});

describe('the pages', () => {
  let pages: ReadonlyMap<string, string>;
  beforeAll(async () => {
    pages = referencePages(await manual());
  });

  const headings = (text: string): string[] =>
    [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading as string));

  it('are the same each time', async () => {
    expect(referencePages(await manual())).toEqual(pages);
  });

  it('have no dead link and no ambiguous one', () => {
    const anchors = new Map([...pages].map(([name, text]) => [name, headings(text)]));
    const dead: string[] = [];
    for (const [name, text] of pages) {
      for (const [, link] of text.matchAll(/\]\(([^)]*)\)/g)) {
        const [file, anchor] = (link as string).split('#');
        const there = anchors.get(file === '' ? name : (file as string));
        const count = there?.filter((one) => one === anchor).length;
        if (there === undefined || (anchor !== undefined && count !== 1)) {
          dead.push(`${name}: ${link}`);
        }
      }
    }
    expect([...new Set(dead)]).toEqual([]);
  });

  it('hold every command and event that introspection shows, and no other', () => {
    const schema = introspect(commands.values(), events.values());
    for (const [kind, file] of [['command', 'commands.md'], ['event', 'events.md']] as const) {
      const names = schema.filter((entry) => entry['meta-type'] === kind).map(({ name }) => name);
      const text = pages.get(file) as string;
      const found = [...text.matchAll(/^### (.*)$/gm)].map(([, name]) => name as string);
      expect(new Set(found)).toEqual(new Set(names));
      expect(found.length).toBe(names.length);
    }
  });

  it('the program’s help names the verbs that there are', () => {
    const [, verbs] = /disk images: ((?:.*,\n)*.*)$/m.exec(USAGE) ?? [];
    expect(verbs?.split(/,\s+/).toSorted()).toEqual(VERB_NAMES.toSorted());
    const [, formats] = /^Formats: (.*)$/m.exec(pages.get('command-line.md') ?? '') ?? [];
    expect(formats?.split(' ')).toContain('quorum');
  });

  it('say what holds when a member is left out, and what may change', () => {
    const text = pages.get('commands.md') as string;
    const [, stream = ''] = text.split('### block-stream\n');
    const speed = '| `speed` | int64 | Optional. Bytes per second. Default: `0`, no limit.';
    expect(stream).toContain(speed);
    expect(text).toMatch(/### x-debug-query-block-graph\n\n.*\n\nSince 4\.0; \*\*unstable\*\*/);
    expect(pages.get('types.md')).toContain('- `concluded`: it is over; its result can be read');
    expect(pages.get('drivers.md')).toContain('### copy-before-write');
    expect(pages.get('command-line.md')).toContain('usage: blockwright img');
  });
});
