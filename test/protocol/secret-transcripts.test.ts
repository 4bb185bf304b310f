// SPDX-License-Identifier: Apache-2.0
// Secrets as objects of a real daemon: given in every way, wrapped, asked for, used and removed.
// What they hold is told by the images that they open.
import { createCipheriv } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'vitest';

import { makeLuks } from '../helpers/luks-images.js';
import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const KEY = Buffer.alloc(32, 7);
const VECTOR = Buffer.alloc(16, 3);
const iv = VECTOR.toString('base64');

function wrapped(text: string | Buffer): string {
  const cipher = createCipheriv('aes-256-cbc', KEY, VECTOR);
  return Buffer.concat([cipher.update(text), cipher.final()]).toString('base64');
}

const secret = (id: string, more: Line = {}): string =>
  command('object-add', { 'qom-type': 'secret', id, ...more });
const group = (id: string): string =>
  command('object-add', { 'qom-type': 'throttle-group', id });
const del = (id: string): string => command('object-del', { id });
const get = (path: string, property: string): string =>
  command('qom-get', { path, property });
const key = secret('k', { data: KEY.toString('base64'), format: 'base64' });

/** Opens and closes an image of a password by this secret. */
const tried = (directory: string, image: string, id: string): Step[] => [
  command('blockdev-add', {
    driver: 'luks', 'node-name': 'n', 'key-secret': id,
    file: { driver: 'file', filename: join(directory, `${image}.luks`) },
  }),
  command('blockdev-del', { 'node-name': 'n' }),
];

/** Properties come in the order of a hash table there. */
function inOneOrder(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return namesInOneOrder(line);
  const named = list as { readonly name?: string }[];
  const sorted = named.toSorted((left, right) =>
    (left.name ?? '') < (right.name ?? '') ? -1 : 1,
  );
  return { ...line, return: sorted };
}

async function play(
  passwords: Readonly<Record<string, string>>,
  makeSteps: (directory: string) => readonly Step[],
): Promise<void> {
  const images = await Promise.all(
    Object.entries(passwords).map(async ([name, text]) => {
      return [name, (await makeLuks([text])).bytes] as const;
    }),
  );
  await compare(makeSteps, inOneOrder, (directory) => {
    for (const [name, bytes] of images) writeFileSync(join(directory, `${name}.luks`), bytes);
    writeFileSync(join(directory, 'pw'), 'pw');
    writeFileSync(join(directory, 'line'), 'pw\n');
    writeFileSync(join(directory, 'coded'), 'cHc=\n');
    writeFileSync(join(directory, 'wrapped'), `${wrapped('pw')}\n`);
  });
}

describe.skipIf(!hasReference)('secrets as a real daemon has them', () => {
  it('what they are made of is refused in the same words', () =>
    play({}, (directory) => [
      hello,
      secret('a', { data: 'pw' }),
      secret('a', { data: 'pw' }),
      secret('b'),
      secret('b', { data: 'x', file: join(directory, 'pw') }),
      ...['gone', '.'].map((name) => secret('b', { file: join(directory, name) })),
      secret('b', { file: '' }),
      secret('b', { data: 'x', format: 'hex' }),
      secret('b', { data: 5 }),
      secret('b', { data: 'x', other: 1 }),
      ...[true, false].map((loaded) => secret('b', { data: 'x', loaded })),
      ...['cH c=', '*', '\u00e4'].map((data) => secret('b', { data, format: 'base64' })),
      ...['1x', '', 'type'].map((id) => secret(id, { data: 'x' })),
      group('t0'),
      secret('t0', { data: 'x' }),
      del('t0'),
      secret('t0', { data: 'x' }),
    ]));

  it('wrapped ones want a key and a vector that fit, and padding that is right', () =>
    play({ pw: 'pw', none: '' }, (directory) => {
      const wrap = (more: Line): string =>
        secret('w', { data: wrapped('pw'), format: 'base64', keyid: 'k', iv, ...more });
      const block = (fill: number): string => Buffer.alloc(16, fill).toString('base64');
      const raw = createCipheriv('aes-256-cbc', KEY, VECTOR).setAutoPadding(false);
      const unpadded = raw.update(Buffer.alloc(16, 'p')).toString('base64');
      return [
        hello,
        key,
        secret('short', { data: 'pw' }),
        group('t0'),
        wrap({ iv: undefined }),
        ...['AAA=', '***', '', 'AAA', 'AA', 'AAA=AAA=', 'AA==AAAA', 'A=AA', '====', 'AAAA===='].map(
          (vector) => wrap({ iv: vector }),
        ),
        ...['gone', 'short', 't0'].map((keyid) => wrap({ keyid })),
        wrap({ keyid: 'gone', data: '*' }),
        wrap({ iv: '*', data: '*' }),
        wrap({ format: 'raw' }),
        wrap({ data: 'cHc=' }),
        ...[0, 9].map((fill) => wrap({ data: block(fill) })),
        wrap({ data: unpadded }),
        secret('w0', { data: wrapped('pw'), format: 'base64', iv }),
        wrap({}),
        ...tried(directory, 'pw', 'w'),
        secret('f', { file: join(directory, 'wrapped'), format: 'base64', keyid: 'k', iv }),
        ...tried(directory, 'pw', 'f'),
        secret('e', { data: wrapped(''), format: 'base64', keyid: 'k', iv }),
        ...tried(directory, 'none', 'e'),
        // A secret goes on without the one that unwrapped it.
        del('k'),
        ...tried(directory, 'pw', 'w'),
        wrap({}),
      ];
    }));

  it('text and base64 are the same bytes, from where ever they come', () =>
    play({ pw: 'pw', pwpw: 'pwpw', line: 'pw\n', none: '' }, (directory) => {
      const from = (name: string): Line => ({ file: join(directory, name) });
      const base64 = (data: string): Line => ({ data, format: 'base64' });
      const cases: readonly (readonly [string, Line])[] = [
        ['pw', from('pw')],
        ['line', from('line')],
        ['pw', { ...from('coded'), format: 'base64' }],
        ['pw', base64('cHc=')],
        ['pw', base64('cH\nc=')],
        ['none', base64('cHc')],
        ['pwpw', base64('cHc=cHc=')],
        ['none', base64('')],
        ['none', { data: '' }],
        ['pw', base64('/w==')],
      ];
      return [
        hello,
        ...cases.flatMap(([image, given]) => [
          secret('s', given),
          ...tried(directory, image, 's'),
          del('s'),
        ]),
      ];
    }));

  it('they tell of themselves, their data aside, and go although a node was opened by them', () =>
    play({ pw: 'pw' }, (directory) => {
      const node = { driver: 'luks', 'node-name': 'n', 'key-secret': 'c' };
      const properties = ['type', 'format', 'file', 'iv', 'keyid', 'loaded', 'nope'];
      return [
        hello,
        key,
        secret('w', { data: wrapped('pw'), format: 'base64', keyid: 'k', iv }),
        secret('c', { file: join(directory, 'pw') }),
        ...properties.flatMap((property) => [get('w', property), get('c', property)]),
        command('qom-set', { path: 'c', property: 'loaded', value: true }),
        command('qom-set', { path: 'c', property: 'type', value: 'x' }),
        command('qom-list', { path: '/objects/w' }),
        command('qom-list', { path: '/objects' }),
        command('qom-list-types', { implements: 'secret' }),
        command('qom-list-properties', { typename: 'secret' }),
        command('blockdev-add', {
          ...node, file: { driver: 'file', filename: join(directory, 'pw.luks') },
        }),
        del('c'),
        del('c'),
        del('w'),
        del('k'),
        get('c', 'format'),
        command('qom-list', { path: '/objects' }),
        command('query-named-block-nodes', { flat: true }),
      ];
    }));
});
