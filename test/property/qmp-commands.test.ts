// SPDX-License-Identifier: Apache-2.0
// Random commands, made from the schema that validates them: each is answered or refused, none
// breaks an assertion, and the engine closes cleanly afterwards.

import fc from 'fast-check';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';

import { commands } from '../../src/api/index.js';
import { createEngine } from '../../src/engine/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { QmpServer } from '../../src/qmp/index.js';
import { resolveType } from '../../src/schema/index.js';
import type { Members, Type } from '../../src/schema/index.js';
import { writeJson } from '../../src/wire/index.js';

const name = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('a', 'b', 'c', 'd', 'e') },
  { weight: 1, arbitrary: fc.constantFrom('/a.img', '/b.img', '', '9') },
);
/** Optional members that most uses need. */
const USUAL = ['job-id', 'node-name'];
/** Commands after which something is going on. */
const BUSY = ['blockdev-add', 'blockdev-backup', 'block-stream', 'blockdev-create'];
const integer = fc.oneof(
  fc.constantFrom(0, 1, 512, 65_536, 1048576, 2n ** 40n, 2n ** 63n - 1n),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
);

/** Values of a type, now and then one that is not. */
function valueOf(type: Type, depth = 0): fc.Arbitrary<unknown> {
  const good = goodValueOf(resolveType(type), depth);
  return fc.oneof({ weight: 60, arbitrary: good }, { weight: 1, arbitrary: fc.jsonValue() });
}

function goodValueOf(type: ReturnType<typeof resolveType>, depth: number): fc.Arbitrary<unknown> {
  switch (type.kind) {
    case 'str':
      return name;
    case 'bool':
      return fc.boolean();
    case 'int':
      return integer;
    case 'enum':
      return fc.constantFrom(...type.values);
    case 'list':
      return fc.array(valueOf(type.element, depth + 1), { maxLength: 3 });
    case 'struct':
      return membersOf(type.members, depth);
    case 'union':
      return fc.constantFrom(...Object.entries(type.branches())).chain(([tag, branch]) => {
        const members = branch?.kind === 'struct' ? branch.members : {};
        return membersOf({ ...type.base, ...members }, depth).map((value) => ({
          ...(value as object),
          [type.discriminator]: tag,
        }));
      });
    case 'alternate': {
      const branches = Object.values(type.branches);
      const shallow =
        depth < 3 ? branches : branches.filter((branch) => branch.kind !== 'deferred');
      return fc.constantFrom(...shallow).chain((branch) => valueOf(branch, depth + 1));
    }
    default:
      return fc.constant(null);
  }
}

function membersOf(members: Members, depth: number): fc.Arbitrary<unknown> {
  const entries = Object.entries(members).map(([key, entry]) => {
    const member = entry.kind === 'member' ? entry : { type: entry, optional: false };
    const value = valueOf(member.type, depth + 1);
    const rare = fc.option(value, { nil: undefined, freq: 1 });
    const sparse = fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, rare);
    return [key, member.optional && !USUAL.includes(key) ? sparse : value] as const;
  });
  return fc.record(Object.fromEntries(entries));
}

/** Character devices are files and sockets of the real machine, whatever the host. */
const UNWANTED = new Set(['quit', 'chardev-add', 'chardev-change']);
const declared = [...commands.values()].filter(({ name: own }) => !UNWANTED.has(own));
const anyCommand = fc
  .oneof(
    { weight: 1, arbitrary: fc.constantFrom(...declared) },
    { weight: 2, arbitrary: fc.constantFrom(...declared.filter((one) => BUSY.includes(one.name))) },
  )
  .chain((declaration) =>
    valueOf(declaration.args).map((args) => ({ execute: declaration.name, arguments: args })),
  );

const commandLists = fc.array(anyCommand, { minLength: 5, maxLength: 25 });

const nodes = [
  { driver: 'file', 'node-name': 'a', filename: '/a.img' },
  { driver: 'null-co', 'node-name': 'b', size: 1048576 },
  { driver: 'raw', 'node-name': 'c', file: { driver: 'null-co', size: 1048576 } },
];

describe('random commands', () => {
  it('are answered one by one, and the engine closes cleanly', async () => {
    await fc.assert(
      fc.asyncProperty(commandLists, fc.nat(), async (list, seed) => {
        const host = new MemoryHost({ seed });
        host.putFile('/a.img', new Uint8Array(1048576));
        const mistakes: unknown[] = [];
        const engine = await createEngine({ host });
        const server = new QmpServer(engine, {
          crash(error) {
            mistakes.push(error);
            // No answer follows.
            output.emit('data', '');
          },
        });
        const [input, output] = [new PassThrough(), new PassThrough()];
        server.serve({ input, output });
        let said = '';
        output.setEncoding('latin1').on('data', (text: string) => {
          said += text;
        });
        const setup = nodes.map((node) => ({ execute: 'blockdev-add', arguments: node }));
        const all = [{ execute: 'qmp_capabilities' }, ...setup, ...list];
        for (const [index, message] of all.entries()) {
          input.write(`${writeJson({ ...message, id: `id-${index}` })}\n`);
          while (!said.includes(`"id": "id-${index}"`) && mistakes.length === 0) {
            await once(output, 'data');
          }
        }
        expect(mistakes).toEqual([]);
        await engine.close();
        await server.close();
        expect([...engine.graph.nodes]).toEqual([]);
        expect(engine.jobs.list()).toEqual([]);
      }),
      { numRuns: 40 },
    );
  });
});
