// SPDX-License-Identifier: Apache-2.0
// Our query-qmp-schema is a subset of a real daemon's: same members, same optional ones, same
// kinds, no enumeration value the real one lacks.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { commands, events } from '../../src/api/index.js';
import { QmpClient } from '../../src/client/index.js';
import { introspect } from '../../src/schema/index.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';

const daemon = peer('qemu-storage-daemon');

interface Entry {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly 'ret-type'?: string;
  readonly 'element-type'?: string;
  readonly 'allow-oob'?: boolean;
  readonly tag?: string;
  readonly members?: readonly {
    readonly name: string;
    readonly type: string;
    readonly default?: null;
    readonly features?: readonly string[];
  }[];
  readonly values?: readonly string[];
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
}

type Schema = ReadonlyMap<string, Entry>;

function indexed(entries: readonly Entry[]): Schema {
  return new Map(entries.map((entry) => [entry.name, entry]));
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
    const our = this.ours.get(ourName) as Entry;
    const their = this.theirs.get(theirName) as Entry;
    if (ourName === 'any') return;
    if (our['meta-type'] !== their['meta-type']) {
      this.differences.push(`${path}: ${our['meta-type']} and not ${their['meta-type']}`);
      return;
    }
    if (our['meta-type'] === 'builtin' && ourName !== theirName) {
      this.differences.push(`${path}: ${ourName} and not ${theirName}`);
    }
    for (const value of our.values ?? []) {
      if (their.values?.includes(value) !== true) this.differences.push(`${path}: value ${value}`);
    }
    if (our['element-type'] !== undefined && their['element-type'] !== undefined) {
      this.compare(`${path}[]`, our['element-type'], their['element-type']);
    }
    if (our.tag !== their.tag)
      this.differences.push(`${path}: tag ${our.tag} and not ${their.tag}`);
    if (our['meta-type'] === 'object') this.#members(path, our, their);
    for (const variant of our.variants ?? []) {
      const other = their.variants?.find((candidate) => candidate.case === variant.case);
      if (other === undefined) continue;
      this.compare(`${path}<${variant.case}>`, variant.type, other.type);
    }
  }

  #members(path: string, our: Entry, their: Entry): void {
    for (const member of our.members ?? []) {
      const other = their.members?.find(({ name }) => name === member.name);
      const at = `${path}.${member.name}`;
      if (other === undefined) {
        this.differences.push(`${at}: unknown to the real one`);
        continue;
      }
      if ('default' in member !== 'default' in other)
        this.differences.push(`${at}: optional or not`);
      this.compare(at, member.type, other.type);
    }
    for (const other of their.members ?? []) {
      const known = our.members?.some(({ name }) => name === other.name) === true;
      if (!known && !('default' in other)) this.differences.push(`${path}.${other.name}: missing`);
    }
  }
}

/** Names of before, which the real one has forgotten. */
const OLD_COMMANDS = [
  'x-blockdev-reopen',
  'x-block-dirty-bitmap-enable',
  'x-block-dirty-bitmap-disable',
  'x-block-dirty-bitmap-merge',
];

/** Told apart on purpose: an image may name a format that this program does not have. */
const KNOWN = [
  'arguments.options<qcow2>.backing-fmt: builtin and not enum',
  ...OLD_COMMANDS.map((name) => `arguments.actions[].type: value ${name}`),
];

describe.skipIf(daemon === null)('the schema', () => {
  let directory = '';
  let theirs: Schema = new Map();
  const ours = indexed(introspect(commands.values(), events.values()) as readonly Entry[]);
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'schema-'));
    await using real = await startRealDaemon(daemon as string, directory);
    await using client = await QmpClient.over(real.socket);
    theirs = indexed((await client.execute('query-qmp-schema')) as readonly Entry[]);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it.each([...commands.keys(), ...events.keys()])('of %s agrees with a real daemon', (name) => {
    const our = ours.get(name) as Entry;
    const their = theirs.get(name);
    // The storage daemon has no machine, so it lacks the events of one; and old names.
    if (their === undefined) {
      expect(['BLOCK_IMAGE_CORRUPTED', ...OLD_COMMANDS]).toContain(name);
      return;
    }
    const comparison = new Comparison(ours, theirs);
    comparison.compare('arguments', our['arg-type'] as string, their['arg-type'] as string);
    if (our['ret-type'] !== undefined && their['ret-type'] !== undefined) {
      comparison.compare('return', our['ret-type'], their['ret-type']);
    }
    expect(comparison.differences.filter((line) => !KNOWN.includes(line))).toEqual([]);
    expect(our['allow-oob'] ?? false).toBe(their['allow-oob'] ?? false);
  });
});
