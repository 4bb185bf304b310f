// SPDX-License-Identifier: Apache-2.0
// Walks two answers of query-qmp-schema side by side, by names and never by type names (which are
// masked), and lists every difference with the place where it is.

export interface SchemaMember {
  readonly name?: string;
  readonly type: string;
  readonly default?: null;
  readonly features?: readonly string[];
}

export interface SchemaEntryLike {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'json-type'?: string;
  readonly 'arg-type'?: string;
  readonly 'ret-type'?: string;
  readonly 'element-type'?: string;
  readonly 'allow-oob'?: boolean;
  readonly tag?: string;
  readonly features?: readonly string[];
  readonly members?: readonly SchemaMember[];
  readonly values?: readonly string[];
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
}

export type Schema = ReadonlyMap<string, SchemaEntryLike>;

export function indexedSchema(entries: readonly unknown[]): Schema {
  return new Map((entries as SchemaEntryLike[]).map((entry) => [entry.name, entry]));
}

/** Differences of one command or event, each `place: what`. */
export function compareSchemas(name: string, ours: Schema, theirs: Schema): string[] {
  const our = ours.get(name);
  const their = theirs.get(name);
  if (our === undefined || their === undefined) return [`${name}: only one side has it`];
  const comparison = new Comparison(ours, theirs);
  const { differences } = comparison;
  if (our['meta-type'] !== their['meta-type']) differences.push('another kind of entry');
  comparison.compare('arguments', our['arg-type'] ?? '', their['arg-type'] ?? '');
  if (our['ret-type'] !== undefined || their['ret-type'] !== undefined) {
    comparison.compare('return', our['ret-type'] ?? '', their['ret-type'] ?? '');
  }
  comparison.features('features', our, their);
  if ((our['allow-oob'] ?? false) !== (their['allow-oob'] ?? false)) {
    differences.push('allow-oob differs');
  }
  return differences;
}

class Comparison {
  readonly differences: string[] = [];
  readonly #seen = new Set<string>();

  constructor(
    readonly ours: Schema,
    readonly theirs: Schema,
  ) {}

  compare(path: string, ourName: string, theirName: string): void {
    const pair = `${ourName}=${theirName}`;
    if (this.#seen.has(pair)) return;
    this.#seen.add(pair);
    const our = this.ours.get(ourName);
    const their = this.theirs.get(theirName);
    if (our === undefined || their === undefined) {
      this.#note(path, `type ${ourName} or ${theirName} is not defined`);
      return;
    }
    if (our['meta-type'] !== their['meta-type']) {
      this.#note(path, `${kindOf(our)} and not ${kindOf(their)}`);
      return;
    }
    if (our['meta-type'] === 'builtin' && ourName !== theirName) {
      this.#note(path, `${ourName} and not ${theirName}`);
    }
    this.features(path, our, their);
    if (our['meta-type'] === 'enum') this.#values(path, our, their);
    if (our['element-type'] !== undefined && their['element-type'] !== undefined) {
      this.compare(`${path}[]`, our['element-type'], their['element-type']);
    }
    if (our['meta-type'] === 'object') this.#object(path, our, their);
    if (our['meta-type'] === 'alternate') this.#alternate(path, our, their);
  }

  features(
    path: string,
    our: { readonly features?: readonly string[] },
    their: { readonly features?: readonly string[] },
  ): void {
    const [left, right] = [our, their].map((of) => [...(of.features ?? [])].sort().join(' '));
    if (left !== right) this.#note(path, `features '${left}' and not '${right}'`);
  }

  #note(path: string, what: string): void {
    this.differences.push(`${path}: ${what}`);
  }

  #values(path: string, our: SchemaEntryLike, their: SchemaEntryLike): void {
    const [left, right] = [our.values ?? [], their.values ?? []];
    const more = left.filter((value) => !right.includes(value));
    const fewer = right.filter((value) => !left.includes(value));
    if (more.length > 0) this.#note(path, `values added: ${more.join(' ')}`);
    if (fewer.length > 0) this.#note(path, `values missing: ${fewer.sort().join(' ')}`);
    for (const member of our.members ?? []) {
      const other = their.members?.find(({ name }) => name === member.name);
      if (other !== undefined) this.features(`${path}=${member.name}`, member, other);
    }
  }

  #object(path: string, our: SchemaEntryLike, their: SchemaEntryLike): void {
    if (our.tag !== their.tag) this.#note(path, `tag ${our.tag} and not ${their.tag}`);
    for (const member of our.members ?? []) {
      const at = `${path}.${member.name}`;
      const other = their.members?.find(({ name }) => name === member.name);
      if (other === undefined) {
        this.#note(at, 'added');
        continue;
      }
      if ('default' in member !== 'default' in other) {
        this.#note(at, 'default' in member ? 'optional' : 'not optional');
      }
      this.features(at, member, other);
      this.compare(at, member.type, other.type);
    }
    for (const other of their.members ?? []) {
      const known = our.members?.some(({ name }) => name === other.name) === true;
      if (!known) this.#note(`${path}.${other.name}`, 'missing');
    }
    for (const variant of our.variants ?? []) {
      const other = their.variants?.find((candidate) => candidate.case === variant.case);
      // A value without a variant of its own has no further members.
      const otherType = other?.type ?? emptyOf(this.theirs);
      this.compare(`${path}<${variant.case}>`, variant.type, otherType);
    }
  }

  #alternate(path: string, our: SchemaEntryLike, their: SchemaEntryLike): void {
    const others = [...(their.members ?? [])];
    for (const member of our.members ?? []) {
      const kind = kindOf(this.ours.get(member.type));
      const index = others.findIndex(({ type }) => kindOf(this.theirs.get(type)) === kind);
      const [other] = index < 0 ? [] : others.splice(index, 1);
      if (other === undefined) this.#note(`${path}|${kind}`, 'added');
      else this.compare(`${path}|${kind}`, member.type, other.type);
    }
    for (const { type } of others) {
      this.#note(`${path}|${kindOf(this.theirs.get(type))}`, 'missing');
    }
  }
}

function kindOf(entry: SchemaEntryLike | undefined): string {
  if (entry === undefined) return 'nothing';
  return entry['meta-type'] === 'builtin' ? entry.name : entry['meta-type'];
}

function emptyOf(schema: Schema): string {
  for (const entry of schema.values()) {
    const isObject = entry['meta-type'] === 'object' && entry.tag === undefined;
    if (isObject && entry.members?.length === 0) return entry.name;
  }
  return '';
}
