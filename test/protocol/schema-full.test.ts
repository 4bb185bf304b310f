// SPDX-License-Identifier: Apache-2.0
// Our query-qmp-schema says of each command and event what a real daemon's says: members, which of
// them are optional, kinds, values, features, out-of-band. Every difference is listed here with
// its reason, and a listed difference that is none any more fails too.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { commands, events } from '../../src/api/index.js';
import { QmpClient } from '../../src/client/index.js';
import { introspect } from '../../src/schema/index.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { compareSchemas, indexedSchema } from '../helpers/schema-comparison.js';
import type { Schema } from '../helpers/schema-comparison.js';

const daemon = peer('qemu-storage-daemon');

/** The reference has drivers, jobs and objects that this program has not; nothing else differs. */
const DIFFERENCES: readonly { readonly at: RegExp; readonly reason: string }[] = [
  { at: /driver: values missing: blkreplay bochs /, reason: 'drivers that are not there' },
  { at: /type: values missing: snapshot-delete snapshot-load/, reason: 'there is no vmstate' },
  { at: /format-specific\.type: values missing: rbd vmdk$/, reason: 'formats not there' },
  { at: /qom-type: values missing: authz-list /, reason: 'objects that are not there' },
  {
    at: /^arguments\.actions\[\](\.type: values added: |<)x-block-dirty-bitmap-/,
    reason: 'names of actions that the reference had in version 3',
  },
  {
    at: /\.(discard-source|min-cluster-size|actively-synced): added$/,
    reason: 'options of backups and facts of mirrors that later versions have',
  },
  {
    at: /^return\[\](: tag type and not undefined|\.type: enum and not str)$/,
    reason: 'a block job says by its type what else it shows, since 8.2',
  },
  {
    at: /<luks>(\.header: added|\.file: optional|\.file\|object<luks>\.header: added)$/,
    reason: 'headers that lie apart from their payload, which later versions have',
  },
  {
    at: /<luks>\.data(\.slots\[\])?\.[a-z-]+: added$/,
    reason: 'LUKS version 2 is told of',
  },
  { at: /\.key-derivation-limit: added$/, reason: 'the time that unlocking may take' },
  { at: /\.pr-manager: missing$/, reason: 'no persistent reservations' },
];

/** Names of versions before the reference's, and of later ones. */
const OWN_NAMES = [
  'blockdev-amend',
  'block-job-change',
  'x-blockdev-reopen',
  'x-block-dirty-bitmap-enable',
  'x-block-dirty-bitmap-disable',
  'x-block-dirty-bitmap-merge',
];

describe.skipIf(daemon === null)('query-qmp-schema', () => {
  let directory = '';
  let theirs: Schema = new Map();
  const ours = indexedSchema(introspect(commands.values(), events.values()));
  const met = new Set<RegExp>();
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'schema-'));
    await using real = await startRealDaemon(daemon as string, directory);
    await using client = await QmpClient.over(real.socket);
    theirs = indexedSchema(await client.execute('query-qmp-schema'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  const names = [...commands.keys(), ...events.keys()];
  const shared = names.filter((name) => !OWN_NAMES.includes(name));

  it.each(shared)('says of %s what a real daemon says', (name) => {
    const unexplained = compareSchemas(name, ours, theirs).filter((difference) => {
      const known = DIFFERENCES.find(({ at }) => at.test(difference));
      if (known !== undefined) met.add(known.at);
      return known === undefined;
    });
    expect(unexplained).toEqual([]);
  });

  it('differs in nothing that is listed in vain', () => {
    expect(DIFFERENCES.filter(({ at }) => !met.has(at)).map(({ at }) => at.source)).toEqual([]);
    for (const name of OWN_NAMES) expect(theirs.has(name), name).toBe(false);
  });

  it('describes builtin types alike', () => {
    for (const entry of ours.values()) {
      if (entry['meta-type'] !== 'builtin') continue;
      expect(entry['json-type'], entry.name).toBe(theirs.get(entry.name)?.['json-type']);
    }
  });

  it('defines every type that it names, and none that nobody uses', () => {
    const used = new Set<string>();
    for (const entry of ours.values()) {
      for (const key of ['arg-type', 'ret-type', 'element-type'] as const) {
        const name = entry[key];
        if (name !== undefined) used.add(name);
      }
      for (const { type } of entry.members ?? []) if (type !== undefined) used.add(type);
      for (const { type } of entry.variants ?? []) used.add(type);
    }
    expect([...used].filter((name) => !ours.has(name))).toEqual([]);
    const unused = [...ours.values()].filter(({ name, 'meta-type': kind }) => {
      return !['command', 'event', 'builtin'].includes(kind) && !used.has(name);
    });
    expect(unused.map(({ name }) => name)).toEqual([]);
  });
});
